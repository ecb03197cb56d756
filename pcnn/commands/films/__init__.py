"""What `pcnn-predict` does with films."""
