//! Key files: 64 hexadecimal digits, readable by their owner alone.

use super::ConfigError;
use rand::TryRngCore as _;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// A key file holds 64 digits and a line end; one that is much longer is something else.
const FILE_BYTES_MAX: u64 = 1024;

/// 32 secret bytes from the operating system.
///
/// # Errors
/// When the system has no randomness to give.
pub fn random_seed() -> std::io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::rngs::OsRng.try_fill_bytes(seed.as_mut_slice()).map_err(std::io::Error::other)?;
    Ok(seed)
}

/// Writes a seed to a new file of mode 0600.
///
/// # Errors
/// [`ConfigError::KeyFile`]; also when the file exists: no key is ever overwritten.
pub fn write_seed(file: &Path, seed: &[u8; 32]) -> Result<(), ConfigError> {
    let text = Zeroizing::new(hex::encode(seed) + "\n");
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut opened| opened.write_all(text.as_bytes()))
        .map_err(|error| refused(file, format!("cannot be written: {error}")))
}

/// Reads a seed.
///
/// # Errors
/// [`ConfigError::KeyFile`]: unreadable, open to others than its owner, or not 64 hexadecimal digits.
pub fn read_seed(file: &Path) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    let text = read_private(file, FILE_BYTES_MAX)?;
    let mut seed = Zeroizing::new([0u8; 32]);
    hex::decode_to_slice(text.trim(), seed.as_mut_slice())
        .map_err(|_| refused(file, "a key is 64 hexadecimal digits and nothing else".to_string()))?;
    Ok(seed)
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// [`ConfigError::KeyFile`].
pub(super) fn read_private(file: &Path, bytes_max: u64) -> Result<Zeroizing<String>, ConfigError> {
    let cannot = |error: std::io::Error| refused(file, format!("cannot be read: {error}"));
    let opened = std::fs::File::open(file).map_err(cannot)?;
    let metadata = opened.metadata().map_err(cannot)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let reason = format!("its mode is {mode:04o}, open to others than its owner: chmod 600");
        return Err(refused(file, reason));
    }
    if metadata.len() > bytes_max {
        return Err(refused(file, format!("{} bytes, more than {bytes_max}", metadata.len())));
    }
    let mut text = Zeroizing::new(String::new());
    opened.take(bytes_max).read_to_string(&mut text).map_err(cannot)?;
    Ok(text)
}

fn refused(file: &Path, reason: String) -> ConfigError {
    ConfigError::KeyFile { file: file.to_path_buf(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let seed = random_seed().unwrap();
        write_seed(&file, &seed).unwrap();
        assert_eq!(*read_seed(&file).unwrap(), *seed);
        assert!(write_seed(&file, &[0; 32]).unwrap_err().to_string().contains("key"));
        assert_eq!(*read_seed(&file).unwrap(), *seed);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write_seed(&file, &[7; 32]).unwrap();
        for mode in [0o640, 0o604, 0o610, 0o601] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_seed(&file).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:04o}")), "{error}");
        }
    }

    #[test]
    fn an_error_never_shows_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write_seed(&file, &[7; 32]).unwrap();
        let mut digits = std::fs::read_to_string(&file).unwrap();
        digits.push('x');
        std::fs::write(&file, &digits).unwrap();
        let error = read_seed(&file).unwrap_err().to_string();
        assert!(error.contains("64 hexadecimal") && !error.contains("0707"), "{error}");
        std::fs::write(&file, vec![b'0'; 5000]).unwrap();
        assert!(read_seed(&file).is_err());
    }
}
