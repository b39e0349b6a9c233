//! What a data folder is: the state of one server on a store of its own, or a process' part of a raft group.
//!
//! A folder is made one or the other when it is first used, and stays so: a start that asks for another form is refused.

use std::path::Path;

use rk_api::server::pki::write_private;
use serde::{Deserialize, Serialize};

use super::ClusterError;
use crate::options::Options;

/// In a data folder: which part of which group it is.
const FILE: &str = "group.json";

/// How the servers of a data folder keep the cluster's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// One server on a durable store.
    Alone,
    /// Members of a raft group.
    Group(Group),
}

/// A process' part of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// How many servers the process has.
    pub(super) servers: u16,
    /// Which of the cluster's processes it is.
    pub(super) place: u16,
    /// Whether servers in other processes may join the group.
    pub(super) open: bool,
    /// Peer URLs of members to be joined; none for who began the group.
    pub(super) peers: Vec<String>,
}

impl Form {
    /// What the folder is, or what the options make of a new one; `None` if it has to join a group first.
    pub(super) fn of(options: &Options, data_dir: &Path) -> Result<Option<Self>, ClusterError> {
        let refuse = |message: String| Err(ClusterError::DataDir { path: data_dir.to_owned(), message });
        let file = data_dir.join(FILE);
        let found = match std::fs::read(&file) {
            Ok(bytes) => match serde_json::from_slice::<Group>(&bytes) {
                Ok(group) => Some(group),
                Err(error) => return refuse(format!("{FILE} is corrupt: {error}")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return refuse(format!("can't read {FILE}: {error}")),
        };
        let asked = match (&options.join, options.cluster_init, options.servers) {
            (Some(_), ..) => "--join",
            (_, true, _) => "--cluster-init",
            (_, _, 1) => "",
            _ => "--servers",
        };
        match found {
            Some(group) if group.servers != options.servers => refuse(format!(
                "it holds a cluster of {} servers, and --servers is {}: start it with --servers {0}, or use another folder",
                group.servers, options.servers
            )),
            Some(group) if asked == "--join" && group.peers.is_empty() => {
                refuse("it is that of the first server of a cluster, which joins no other: leave out --join".to_owned())
            }
            Some(group) if asked == "--cluster-init" && !group.open => {
                refuse("it holds a cluster that nobody can join: leave out --cluster-init".to_owned())
            }
            Some(group) => Ok(Some(Self::Group(group))),
            None if data_dir.join("store").exists() => match asked {
                "" => Ok(Some(Self::Alone)),
                _ => refuse(format!(
                    "it holds a cluster of one server on a store of its own: start it without {asked}, or use another folder"
                )),
            },
            None => match asked {
                "" => Ok(Some(Self::Alone)),
                "--join" => Ok(None),
                _ => {
                    let group =
                        Group { servers: options.servers, place: 0, open: options.cluster_init, peers: Vec::new() };
                    group.save(data_dir)?;
                    Ok(Some(Self::Group(group)))
                }
            },
        }
    }
}

impl Group {
    /// Makes the folder that of this part of the group.
    pub(super) fn save(&self, data_dir: &Path) -> Result<(), ClusterError> {
        let json = serde_json::to_vec_pretty(self).expect("numbers and strings encode");
        Ok(write_private(&data_dir.join(FILE), &json)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn of(dir: &Path, args: &[&str]) -> Result<Option<Form>, String> {
        let options = Options::parse_from(std::iter::once("mini-cluster").chain(args.iter().copied()));
        Form::of(&options, dir).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let Ok(Some(Form::Group(group))) = of(dir.path(), &["--servers", "3"]) else { panic!("no group") };
        assert_eq!((group.servers, group.place), (3, 0));
        assert_eq!(of(dir.path(), &["--servers", "3"]), Ok(Some(Form::Group(group))));
        for other in [&[][..], &["--servers", "5"], &["--cluster-init"], &["--join", "https://a:1"]] {
            let refused = of(dir.path(), other).unwrap_err();
            assert!(refused.contains("start it with --servers 3"), "{other:?}: {refused}");
        }
    }

    #[test]
    fn a_group_goes_on_without_the_options_that_began_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = of(dir.path(), &["--cluster-init"]).unwrap();
        assert_eq!(of(dir.path(), &[]).unwrap(), first);
        assert!(of(dir.path(), &["--join", "https://a:1"]).unwrap_err().contains("leave out --join"));
        let joined = Group { servers: 1, place: 2, open: true, peers: vec!["https://a:2380".to_owned()] };
        joined.save(dir.path()).unwrap();
        assert_eq!(of(dir.path(), &["--join", "https://a:1"]), Ok(Some(Form::Group(joined))));
    }

    #[test]
    fn a_server_of_its_own_becomes_no_group() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path(), &["--join", "https://a:1"]), Ok(None), "it has to ask first");
        assert_eq!(of(dir.path(), &[]), Ok(Some(Form::Alone)));
        std::fs::create_dir(dir.path().join("store")).unwrap();
        assert_eq!(of(dir.path(), &[]), Ok(Some(Form::Alone)));
        for other in [&["--servers", "3"][..], &["--cluster-init"], &["--join", "https://a:1"]] {
            assert!(of(dir.path(), other).unwrap_err().contains("a cluster of one server"), "{other:?}");
        }
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(of(dir.path(), &[]).unwrap_err().contains("corrupt"));
    }
}
