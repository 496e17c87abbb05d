//! Open-loop load generator and the comparison with peers.
