//! Rules, their windows, and the state machine that tells a change once.
