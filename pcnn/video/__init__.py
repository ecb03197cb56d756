"""Films: frames decoded, people followed, scores steadied, and what is made of them for people."""
