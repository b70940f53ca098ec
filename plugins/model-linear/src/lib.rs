//! Linear regression on residue composition: the example to copy.
