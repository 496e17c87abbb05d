//! One decoder per wire format, from body to batch.
