//! Starting one process: resolve the command, prepare the namespace on a thread of its own, start it there.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::process::{Child, Command};

use super::{cgroup::Cgroup, mounts};
use crate::runtime::types::Mount;

/// Where programs are looked for when the container's environment does not say.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The mount namespace that the process gets.
pub(super) enum View {
    /// The agent's.
    Host,
    /// One of its own, with these mounts.
    New {
        /// Folder for copies of host folders.
        scratch: PathBuf,
        /// Host name; `None` for the host's.
        hostname: Option<String>,
        /// The mounts.
        mounts: Vec<Mount>,
    },
    /// That of a running process.
    Join(i32),
}

/// What to start.
pub(super) struct Launch {
    pub(super) command: Vec<String>,
    pub(super) envs: Vec<(String, String)>,
    pub(super) cwd: PathBuf,
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) view: View,
    pub(super) cgroup: Option<Cgroup>,
    /// The terminal's end for the process; `None` for pipes.
    pub(super) tty: Option<std::os::fd::OwnedFd>,
    pub(super) stdin: bool,
}

impl Launch {
    /// Starts the process, leader of a process group (with a terminal: of a session) of its own.
    ///
    /// # Errors
    /// In the words of the kubelet where the program is not there.
    pub(super) async fn spawn(self) -> io::Result<Child> {
        let handle = tokio::runtime::Handle::current();
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("launch".to_owned()).spawn(move || {
            let _runtime = handle.enter();
            // The receiver only goes when the runtime ends; then the child goes with `kill_on_drop`.
            let _ = send.send(self.spawn_here());
        })?;
        receive.await.map_err(|_| io::Error::other("the launching thread died"))?
    }

    fn spawn_here(self) -> io::Result<Child> {
        match &self.view {
            View::Host => {}
            View::New { scratch, hostname, mounts } => {
                let mut namespace = mounts::Namespace::enter(scratch, hostname.as_deref())?;
                mounts.iter().try_for_each(|wanted| namespace.add(wanted))?;
            }
            View::Join(pid) => mounts::join(*pid)?,
        }
        let path = self.envs.iter().rev().find(|(name, _)| name == "PATH").map_or(PATH, |(_, path)| path.as_str());
        let (name, args) =
            self.command.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command"))?;
        if !self.cwd.is_dir() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("chdir to cwd ({:?}) set in config.json failed: no such file or directory", self.cwd),
            ));
        }
        let program = resolve(name, path, &self.cwd)?;
        let as_root = self.user.is_none_or(|user| user == 0);
        let mut words: Vec<OsString> = Vec::new();
        if self.tty.is_some() && Path::new("/usr/bin/setsid").exists() {
            words.extend(["/usr/bin/setsid", "--ctty"].map(OsString::from));
        }
        if let (Some(cgroup), true) = (&self.cgroup, as_root) {
            // The shell joins before it becomes the program, so that nothing escapes the limits.
            let joints: String =
                cgroup.joints().iter().map(|file| format!("echo 0 > '{}'; ", file.display())).collect();
            words.extend(["/bin/sh", "-c"].map(OsString::from));
            words.push(format!("{joints}exec \"$@\"").into());
            words.push("sh".into());
        }
        words.push(program.into());
        words.extend(args.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().envs(self.envs.iter().map(|(k, v)| (k, v))).current_dir(&self.cwd);
        if let Some(group) = self.group {
            command.gid(group);
        }
        if let Some(user) = self.user {
            command.uid(user);
        }
        command.kill_on_drop(true);
        match self.tty {
            Some(tty) => {
                // `setsid` makes a session, and with it a group, unless it already leads one.
                if words[0] != *"/usr/bin/setsid" {
                    command.process_group(0);
                }
                command.stdin(Stdio::from(tty.try_clone()?)).stdout(Stdio::from(tty.try_clone()?)).stderr(tty);
            }
            None => {
                command.process_group(0);
                command.stdin(if self.stdin { Stdio::piped() } else { Stdio::null() });
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
        }
        let child = command.spawn()?;
        if let (Some(cgroup), false, Some(pid)) = (&self.cgroup, as_root, child.id()) {
            cgroup.join(pid.cast_signed())?;
        }
        Ok(child)
    }
}

/// The program that `name` means.
fn resolve(name: &str, path: &str, cwd: &Path) -> io::Result<PathBuf> {
    let executable =
        |file: &Path| fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        let file = cwd.join(name);
        if executable(&file) {
            return Ok(file);
        }
        let (kind, why) = if file.exists() {
            (io::ErrorKind::PermissionDenied, "permission denied")
        } else {
            (io::ErrorKind::NotFound, "no such file or directory")
        };
        return Err(io::Error::new(kind, format!("exec: {name:?}: stat {name}: {why}")));
    }
    path.split(':').map(|folder| cwd.join(folder).join(name)).find(|file| executable(file)).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("exec: {name:?}: executable file not found in $PATH"))
    })
}

/// Sends a signal to a process group; one that is gone has nobody to hear it.
pub(super) fn signal_group(pid: i32, signal: Signal) {
    if let Err(error) = killpg(Pid::from_raw(pid), signal)
        && error != nix::errno::Errno::ESRCH
    {
        tracing::warn!(pid, %signal, %error, "can't signal the process group");
    }
}

/// When a process started, in clock ticks since boot: with the pid, its identity until the next boot.
pub(super) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name may hold spaces and parentheses; fields are counted from behind its last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// CPU time in nanoseconds and resident bytes of all processes of a group.
pub(super) fn group_usage(group: i32) -> (u64, u64) {
    let ticks =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1).cast_unsigned();
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096).cast_unsigned();
    let (mut cpu, mut rss) = (0, 0);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if !entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        if fields.get(2).is_some_and(|of| of.parse() == Ok(group)) {
            cpu += number(11) + number(12);
            rss += number(21) * page;
        }
    }
    (cpu * (1_000_000_000 / ticks), rss)
}
