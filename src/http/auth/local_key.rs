//! The key by which `codexd hooks add` proves that it can read the state directory, where the system does not report the
//! user of a connection and there is no token.
//!
//! The key itself is never sent: a process of another user may have taken the address of the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use ring::hmac;

use super::token::new_token;
use crate::blocking::Pool;
use crate::storage::{Disk, read_secret};

/// The name of the file in the state directory.
const NAME: &str = "hooks-key";
/// The longest content of the file, in bytes.
const MAX_BYTES: u64 = 512;
/// How long reading the file may take.
const FILE_TIMEOUT: Duration = Duration::from_secs(5);
static POOL: Pool = Pool::new("hooks key", 1, 3);

/// Whether this system needs the key: it does not report the user of a connection.
pub const IS_NEEDED: bool = !cfg!(target_os = "linux");

/// Creates the key if there is none. Blocks.
pub fn create(state_dir: &Path) -> io::Result<()> {
    match Disk::default().create_secret(&state_dir.join(NAME), new_token()?.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// The proof for a hook with this name and command; `None` without a key. Blocks.
pub fn prove(state_dir: &Path, name: &str, command: &[String]) -> Option<String> {
    let key = read(state_dir).ok()?;
    Some(HEXLOWER.encode(hmac::sign(&key, &message(name, command)).as_ref()))
}

/// Whether this is the proof for a hook with this name and command.
pub(in crate::http) async fn is_proof(
    state_dir: PathBuf,
    proof: &str,
    name: &str,
    command: &[String],
) -> bool {
    let (Ok(proof), message) = (HEXLOWER.decode(proof.as_bytes()), message(name, command)) else {
        return false;
    };
    let check = move || read(&state_dir).is_ok_and(|key| hmac::verify(&key, &message, &proof).is_ok());
    POOL.run(FILE_TIMEOUT, check).await.unwrap_or(false)
}

#[expect(
    clippy::disallowed_methods,
    reason = "it blocks, as documented; its callers use a pool or are commands"
)]
fn read(state_dir: &Path) -> io::Result<hmac::Key> {
    let (secret, _) = read_secret(&state_dir.join(NAME), MAX_BYTES)?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &secret))
}

/// What is signed: the list of both, so that no name is part of another command.
fn message(name: &str, command: &[String]) -> Vec<u8> {
    serde_json::json!([name, command]).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn proof_needs_the_key_and_holds_for_one_name_and_command() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let command = ["echo".to_owned(), "a".to_owned()];
        assert_eq!(prove(path, "n", &command), None);
        create(path).unwrap();
        create(path).unwrap();
        let proof = prove(path, "n", &command).unwrap();
        assert!(is_proof(path.to_owned(), &proof, "n", &command).await);
        assert!(!is_proof(path.to_owned(), &proof, "m", &command).await);
        assert!(!is_proof(path.to_owned(), &proof, "n", &command[..1]).await);
        assert!(!is_proof(path.to_owned(), "", "n", &command).await);
        assert!(!is_proof(path.to_owned(), "not hexadecimal", "n", &command).await);
        let other = tempfile::tempdir().unwrap();
        create(other.path()).unwrap();
        assert!(!is_proof(other.path().to_owned(), &proof, "n", &command).await);
    }
}
