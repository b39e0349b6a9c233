//! The keys of service-account tokens, and the documents that publish them.

use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use serde_json::{Value, json};

use super::Claims;

/// A key that can't be used, or a token that could not be signed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("service-account key: {0}")]
pub struct KeyError(String);

impl From<jsonwebtoken::errors::Error> for KeyError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self(error.to_string())
    }
}

/// The public half of a signing key: checks tokens.
#[derive(Clone)]
pub struct TokenKey {
    pub(super) id: String,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
    jwk: Jwk,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("id", &self.id).field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl TokenKey {
    /// A public key in PEM, or the public half of a private one.
    ///
    /// # Errors
    /// The text is no key for ES256 or RS256.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        if pem.contains("PRIVATE KEY") {
            return TokenSigner::from_pem("", pem).map(|signer| signer.public);
        }
        let (key, algorithm) = match DecodingKey::from_ec_pem(pem.as_bytes()) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => match DecodingKey::from_rsa_pem(pem.as_bytes()) {
                Ok(key) => (key, Algorithm::RS256),
                Err(error) => return Err(KeyError(format!("neither an EC nor an RSA key in PEM: {error}"))),
            },
        };
        Self::new(Jwk::from_decoding_key(&key, Some(algorithm))?, algorithm)
    }

    fn new(mut jwk: Jwk, algorithm: Algorithm) -> Result<Self, KeyError> {
        // RFC 7638: the same key has the same identity wherever it is loaded.
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let decoding = DecodingKey::from_jwk(&jwk)?;
        Ok(Self { id, algorithm, decoding, jwk })
    }
}

/// Signs service-account tokens with ES256 (a P-256 key) or RS256 (an RSA key).
#[derive(Debug, Clone)]
pub struct TokenSigner {
    issuer: String,
    key: EncodingKey,
    public: TokenKey,
}

impl TokenSigner {
    /// Signs as `issuer` (an URL) with a private key in PEM: PKCS #8 for P-256, PKCS #8 or PKCS #1 for RSA.
    ///
    /// # Errors
    /// The text is no such key.
    pub fn from_pem(issuer: &str, pem: &str) -> Result<Self, KeyError> {
        let (key, algorithm) = match EncodingKey::from_ec_pem(pem.as_bytes()) {
            Ok(key) => (key, Algorithm::ES256),
            Err(_) => match EncodingKey::from_rsa_pem(pem.as_bytes()) {
                Ok(key) => (key, Algorithm::RS256),
                Err(error) => return Err(KeyError(format!("neither an EC nor an RSA private key in PEM: {error}"))),
            },
        };
        let public = TokenKey::new(Jwk::from_encoding_key(&key, algorithm)?, algorithm)?;
        Ok(Self { issuer: issuer.to_owned(), key, public })
    }

    /// The issuer in the tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The key that checks the tokens.
    pub fn public_key(&self) -> &TokenKey {
        &self.public
    }

    /// Signs a token that says this; the issuer is the signer's.
    ///
    /// # Errors
    /// The key can't sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let header = Header { kid: Some(self.public.id.clone()), typ: None, ..Header::new(self.public.algorithm) };
        let claims = Claims { iss: self.issuer.clone(), ..claims.clone() };
        Ok(jsonwebtoken::encode(&header, &claims, &self.key)?)
    }
}

/// The document at `/.well-known/openid-configuration`: where the keys of an issuer are.
pub fn discovery(issuer: &str, jwks_uri: &str, keys: &[TokenKey]) -> Value {
    let mut algorithms: Vec<String> = keys.iter().map(|key| format!("{:?}", key.algorithm)).collect();
    algorithms.sort();
    algorithms.dedup();
    json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algorithms,
    })
}

/// The document at `/openid/v1/jwks`: the public keys (RFC 7517).
pub fn jwks(keys: &[TokenKey]) -> Value {
    json!({ "keys": keys.iter().map(|key| json!(key.jwk)).collect::<Vec<_>>() })
}
