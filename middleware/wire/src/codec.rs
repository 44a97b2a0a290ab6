//! The codec: borsh, which is canonical (one encoding per value) and whose decoder allocates no more than its input
//! can fill. Trailing bytes and inputs above the bound are refused.

use borsh::{BorshDeserialize, BorshSerialize};

/// Why bytes are not a value. The sender is at fault.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than the bound.
    #[error("{got} bytes where at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// Not the encoding of a value of this type.
    #[error("not a valid {type_name}: {reason}")]
    Malformed {
        /// The type expected.
        type_name: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

/// The canonical encoding of `value`.
pub fn encode<T: BorshSerialize + ?Sized>(value: &T) -> Vec<u8> {
    // Writing into memory fails only for lengths above u32::MAX, which the limits exclude.
    borsh::to_vec(value).unwrap_or_default()
}

/// Decodes exactly one value from all of `bytes`, at most `max` of them.
///
/// # Errors
/// [`DecodeError`] when `bytes` are too many, malformed, or more than the value.
pub fn decode<T: BorshDeserialize>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { got: bytes.len(), max });
    }
    borsh::from_slice(bytes).map_err(|error| DecodeError::Malformed {
        type_name: std::any::type_name::<T>().rsplit("::").next().unwrap_or("value"),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailing_bytes_and_oversized_inputs_are_refused() {
        let mut bytes = encode(&7u32);
        assert_eq!(decode::<u32>(&bytes, 4), Ok(7));
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes, 16), Err(DecodeError::Malformed { .. })));
        assert!(matches!(decode::<u32>(&bytes, 4), Err(DecodeError::TooLong { got: 5, max: 4 })));
    }

    #[test]
    fn a_length_that_the_input_cannot_fill_is_refused_without_allocating_it() {
        let bytes = u32::MAX.to_le_bytes();
        assert!(decode::<Vec<u8>>(&bytes, 16).is_err());
        assert!(decode::<Vec<u64>>(&bytes, 16).is_err());
    }
}
