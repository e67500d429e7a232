//! The signature of Standard Webhooks (<https://www.standardwebhooks.com>), version `v1`: HMAC-SHA256.

use data_encoding::BASE64;
use ring::hmac;

/// The prefix of a secret in text, which is optional.
const SECRET_PREFIX: &str = "whsec_";
/// How many bytes a secret has, by the specification.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The key in the text of a secret, or a sentence that says what is wrong.
pub(super) fn key(secret: &str) -> Result<hmac::Key, String> {
    let text = secret.strip_prefix(SECRET_PREFIX).unwrap_or(secret);
    let bytes = BASE64.decode(text.as_bytes()).ok().filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    let Some(bytes) = bytes else {
        return Err(format!(
            "secret must be {} to {} bytes in base64, with or without {SECRET_PREFIX} before them.",
            SECRET_BYTES.start(),
            SECRET_BYTES.end()
        ));
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

/// The value of `webhook-signature`.
pub(super) fn sign(key: &hmac::Key, id: &str, timestamp: &str, payload: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", payload] {
        context.update(part);
    }
    format!("v1,{}", BASE64.encode(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with the Python package standardwebhooks 1.1.0: `Webhook(secret).sign(id, time, payload)`.
    #[test]
    fn signature_is_that_of_the_reference_implementation() {
        let payload = br#"{"test": 2432232314}"#;
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        for secret in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            let signature =
                sign(&key(secret).unwrap(), "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", payload);
            assert_eq!(signature, expected);
        }
    }

    #[test]
    fn secret_has_24_to_64_bytes_in_base64() {
        for bytes in [24, 64] {
            key(&BASE64.encode(&vec![7; bytes])).unwrap();
        }
        for wrong in
            ["", "whsec_", "whsec_short", &BASE64.encode(&[7; 23]), &BASE64.encode(&[7; 65]), "not base64!"]
        {
            let error = key(wrong).unwrap_err();
            assert!(error.starts_with("secret must be 24 to 64 bytes"), "{error}");
        }
    }
}
