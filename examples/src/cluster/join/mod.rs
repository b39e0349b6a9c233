//! How servers in other processes come into a cluster: one question and one answer over TLS.
//!
//! ```text
//! who joins                                        a server's door (port 9345)
//!   TLS: the server's authority must have the token's fingerprint
//!   {"secret", "process"}               ─►  the secret is checked, the process gets a place, the group a learner
//!                                       ◄─  {"place", "block", "peers", "files": authorities and keys}
//! ```
//! The token names the cluster's authority by its fingerprint, so who joins tells the secret to nobody else; and the secret opens the
//! door. Asking again is safe: a process that was killed in between has the same place when it comes back.

mod door;
mod leave;
mod pin;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rk_api::server::pki::write_private;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::TlsConnector;

pub(super) use self::{door::Door, leave::forget_deleted};
use super::{
    Addresses, ClusterError, PATIENCE,
    form::Group,
    servers::{PEER_PKI, PKI, PROXY_PKI},
};
use crate::options::Options;

/// The port at which servers are joined.
pub(super) const PORT: u16 = 9345;
/// In a data folder: the token.
const TOKEN: &str = "token";
/// In a data folder: what a process calls itself until it has a place.
const PROCESS: &str = "process-id";
/// What every server of a cluster has of its authorities, below the data folder.
fn shared_files() -> [String; 7] {
    let of = |pki: &str, name: &str| format!("{pki}/{name}");
    let both = |pki: &str| [of(pki, "ca.crt"), of(pki, "ca.key")];
    let ([a, b], [c, d], [e, f]) = (both(PKI), both(PEER_PKI), both(PROXY_PKI));
    [a, b, of(PKI, "sa.key"), c, d, e, f]
}
/// The longest message.
const MESSAGE: u64 = 64 << 10;
/// How long either side waits for the other.
const WAIT: Duration = Duration::from_secs(15);
/// Pause between tries.
const RETRY: Duration = Duration::from_millis(500);

/// What who joins says.
#[derive(Serialize, Deserialize)]
struct Question {
    secret: String,
    /// Tells processes apart that have no place yet.
    process: String,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
enum Answer {
    Welcome(Welcome),
    /// The group can't take it in now.
    Later(String),
    Refused(String),
}

/// All that a process needs to be part of the cluster.
#[derive(Serialize, Deserialize)]
struct Welcome {
    place: u16,
    block: u8,
    peers: Vec<String>,
    files: BTreeMap<String, String>,
}

/// What opens the door, and of whom it may be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// SHA-256 of the authority's certificate in DER.
    fingerprint: String,
    secret: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex(&Sha256::digest(certificate))
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (fingerprint, secret) = text.trim().split_once('.')?;
        let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (is_hex(fingerprint) && is_hex(secret))
            .then(|| Self { fingerprint: fingerprint.to_owned(), secret: secret.to_owned() })
    }

    /// The token of a data folder, made if there is none, and where it is. `ca` is the cluster's authority.
    pub(super) fn open(data_dir: &Path, ca: &str) -> Result<(Self, PathBuf), ClusterError> {
        let path = data_dir.join(TOKEN);
        let error = |message: String| ClusterError::DataDir { path: path.clone(), message };
        let token = match std::fs::read_to_string(&path) {
            Ok(text) => {
                Self::parse(&text).ok_or_else(|| error("it is no token; remove it to have one made".to_owned()))?
            }
            Err(found) if found.kind() == io::ErrorKind::NotFound => {
                let ca = CertificateDer::from_pem_slice(ca.as_bytes()).map_err(|e| error(e.to_string()))?;
                let token = Self { fingerprint: fingerprint(&ca), secret: hex(&rand::random::<[u8; 32]>()) };
                write_private(&path, format!("{token}\n").as_bytes())?;
                token
            }
            Err(found) => return Err(error(found.to_string())),
        };
        Ok((token, path))
    }

    /// The one that the options give.
    fn of(options: &Options) -> Result<Self, ClusterError> {
        let error = |message: &str| ClusterError::part("join", &message);
        let text = match (&options.token, &options.token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(file)) => std::fs::read_to_string(file)
                .map_err(|e| error(&format!("can't read the token from {}: {e}", file.display())))?,
            (None, None) => {
                return Err(error(
                    "--join needs --token or --token-file: the file `token` in the data folder of a server",
                ));
            }
        };
        Self::parse(&text).ok_or_else(|| {
            error("the token is not whole: it is the content of the file `token` in the data folder of a server")
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.fingerprint, self.secret)
    }
}

async fn send<T: Serialize>(stream: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

async fn receive<T: DeserializeOwned>(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MESSAGE)).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Makes a new data folder that of a process which has joined the cluster.
pub(super) async fn join(url: &str, options: &Options, data_dir: &Path) -> Result<Group, ClusterError> {
    let error = |message: &dyn std::fmt::Display| ClusterError::part("join", message);
    let token = Token::of(options)?;
    let address = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/')).unwrap_or_default();
    let host = address.rsplit_once(':').map(|(host, _)| host.to_owned());
    let host = host.and_then(|host| ServerName::try_from(host).ok());
    let host = host.ok_or_else(|| error(&format!("{url:?} is not https://HOST:PORT")))?;
    let config = Arc::new(pin::client_config(&token.fingerprint).map_err(|e| error(&e))?);
    let question = Question { secret: token.secret.clone(), process: process_id(data_dir)? };
    let end = Instant::now() + PATIENCE;
    let welcome = loop {
        let why = match timeout(WAIT, ask(address, host.clone(), Arc::clone(&config), &question)).await {
            Ok(Ok(Answer::Welcome(welcome))) => break welcome,
            Ok(Ok(Answer::Refused(why))) => return Err(error(&why)),
            Ok(Ok(Answer::Later(why))) => why,
            // A server that is not the one that the token names never becomes it.
            Ok(Err(failed)) if failed.kind() == io::ErrorKind::InvalidData => {
                return Err(error(&format!("{url}: {failed}")));
            }
            Ok(Err(failed)) => failed.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if Instant::now() > end {
            return Err(error(&format!("{url}: {why}")));
        }
        sleep(RETRY).await;
    };
    for pki in [PKI, PEER_PKI, PROXY_PKI] {
        super::create_private(&data_dir.join(pki))?;
    }
    for name in shared_files() {
        let file = welcome.files.get(&name).ok_or_else(|| error(&format!("the answer lacks {name}")))?;
        write_private(&data_dir.join(name), file.as_bytes())?;
    }
    write_private(&data_dir.join(TOKEN), format!("{token}\n").as_bytes())?;
    Addresses::note(data_dir, welcome.block)?;
    let group = Group { servers: 1, place: welcome.place, open: true, peers: welcome.peers };
    // Last: from now on the folder is that of a server which goes on by itself.
    group.save(data_dir)?;
    Ok(group)
}

/// What this process calls itself, the same whenever it is started on its folder.
fn process_id(data_dir: &Path) -> Result<String, ClusterError> {
    let path = data_dir.join(PROCESS);
    match std::fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = hex(&rand::random::<[u8; 16]>());
            write_private(&path, id.as_bytes())?;
            Ok(id)
        }
        Err(error) => Err(ClusterError::DataDir { path, message: error.to_string() }),
    }
}

async fn ask(
    address: &str,
    host: ServerName<'static>,
    config: Arc<ClientConfig>,
    question: &Question,
) -> io::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let mut stream = TlsConnector::from(config).connect(host, stream).await?;
    send(&mut stream, question).await?;
    receive(&mut stream).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rk_api::server::pki::Pki;

    use super::*;

    #[test]
    fn a_token_is_kept_private_and_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(&dir.path().join(PKI)).unwrap();
        let (token, path) = Token::open(dir.path(), pki.ca()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::open(dir.path(), pki.ca()).unwrap().0, token);
        assert_eq!(Token::parse(&format!(" {token}\n")), Some(token));
        for bad in ["", "a.b", &"0".repeat(129), &format!("{}.{}", "g".repeat(64), "0".repeat(64))] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
        std::fs::write(&path, "x").unwrap();
        assert!(Token::open(dir.path(), pki.ca()).is_err());
    }
}
