//! One story a test: what is observed, and what follows.
