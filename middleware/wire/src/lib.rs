//! What travels: the canonical bounded codec ([`codec`]), keys and signatures ([`auth`]), and the messages of the
//! transaction protocol ([`transaction`]).

pub mod auth;
pub mod codec;
pub mod transaction;
