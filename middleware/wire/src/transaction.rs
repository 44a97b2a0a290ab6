//! The messages of the transaction protocol.
