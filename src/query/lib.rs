//! What is asked of samples, and how partial answers merge.
