//! Bearer tokens that are known beforehand.

use std::{collections::HashMap, path::Path};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::server::{AuthenticationError, Authenticator, Credentials, UserInfo};

/// A token file that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file can't be read.
    #[error("can't read token file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not what it should be.
    #[error("token file {path}, line {line}: {message}")]
    Line {
        /// The file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// Users by bearer token, in the format of kube-apiserver's `--token-auth-file`: lines of
/// `token,user,uid[,"group1,group2"]`.
///
/// Tokens are held as their SHA-256, so a look-up takes no longer for a token that is nearly right.
#[derive(Debug, Clone, Default)]
pub struct StaticTokens {
    users: HashMap<[u8; 32], UserInfo>,
}

impl StaticTokens {
    /// The users of these tokens.
    pub fn new(users: impl IntoIterator<Item = (String, UserInfo)>) -> Self {
        Self { users: users.into_iter().map(|(token, user)| (digest(&token), user)).collect() }
    }

    /// Reads a token file.
    ///
    /// # Errors
    /// The file can't be read, or a line has fewer than three fields, no token, an open quote, or a token again.
    pub fn from_file(path: &Path) -> Result<Self, TokenFileError> {
        let name = path.display().to_string();
        let text =
            std::fs::read_to_string(path).map_err(|source| TokenFileError::Read { path: name.clone(), source })?;
        Self::parse(&text).map_err(|(line, message)| TokenFileError::Line { path: name, line, message })
    }

    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let fail = |message: &str| (number + 1, message.to_owned());
            let fields = fields(line).ok_or_else(|| fail("a quote is not closed"))?;
            let [token, name, uid, rest @ ..] = fields.as_slice() else {
                return Err(fail("expected at least 3 fields: token, user, uid"));
            };
            if token.is_empty() {
                return Err(fail("the token is empty"));
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned);
            let user =
                UserInfo { name: name.clone(), uid: uid.clone(), groups: groups.collect(), ..UserInfo::default() };
            if users.insert(digest(token), user).is_some() {
                return Err(fail("the token was given before"));
            }
        }
        Ok(Self { users })
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The fields of a CSV line, quotes taken off; `None` if one is not closed.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if !quoted && field.is_empty() => {}
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

#[async_trait]
impl Authenticator for StaticTokens {
    async fn authenticate(&self, credentials: &Credentials) -> Result<Option<UserInfo>, AuthenticationError> {
        Ok(credentials.token.as_deref().and_then(|token| self.users.get(&digest(token))).cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn token_files_are_read_as_kube_apiserver_reads_them() {
        let tokens = StaticTokens::parse("t1,jane,u1,\"dev, ops\"\n\nt2,joe,u2\n").unwrap();
        let ask = async |token: Option<&str>| {
            let credentials = Credentials { token: token.map(str::to_owned), ..Credentials::default() };
            tokens.authenticate(&credentials).await.unwrap()
        };
        let jane = ask(Some("t1")).await.unwrap();
        assert_eq!((jane.name.as_str(), jane.uid.as_str()), ("jane", "u1"));
        assert_eq!(jane.groups, ["dev", "ops"]);
        assert!(ask(Some("t2")).await.unwrap().groups.is_empty());
        assert_eq!(ask(Some("t3")).await, None);
        assert_eq!(ask(None).await, None);
        for (bad, line) in [("t1,jane", 1), ("t1,a,b\nt1,c,d", 2), (",a,b", 1), ("t,a,\"b", 1)] {
            assert_eq!(StaticTokens::parse(bad).unwrap_err().0, line, "{bad}");
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = StaticTokens::from_file(Path::new("/nonexistent/tokens.csv")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/tokens.csv"));
    }
}
