"""Step times from measured kernels: a profile folder, its tables, and what is built of them."""
