//! The product's own suite: chains and declarations made here, one wrong thing at a time.
