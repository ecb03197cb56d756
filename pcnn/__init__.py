"""Facial expression recognition with a perception CNN."""
