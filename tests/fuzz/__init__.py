"""A fuzzer for everything that pcnn reads from files: `make fuzz`, see docs/reliability.md."""
