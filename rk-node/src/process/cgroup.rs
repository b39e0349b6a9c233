//! Limits of a container's processes, through cgroup v1 hierarchies or the unified v2 one, where they can be written.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::runtime::types::LinuxContainerResources;

const ROOT: &str = "/sys/fs/cgroup";

/// What a cgroup has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) cpu_nanos: u64,
    pub(super) working_set: u64,
    pub(super) rss: u64,
}

/// The cgroup of one container.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Cgroup {
    /// One folder per v1 hierarchy, or the one folder of v2.
    folders: Vec<PathBuf>,
    unified: bool,
}

impl Cgroup {
    /// Makes the cgroup `path` (such as `/kubepods/burstable/podUID/ID`) and sets its limits.
    pub(super) fn create(path: &str, resources: &LinuxContainerResources) -> io::Result<Self> {
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        let relative = path.trim_start_matches('/');
        let folders = if unified {
            let mut above = PathBuf::from(ROOT);
            for part in Path::new(relative) {
                // Which controllers there are depends on the machine: what is missing shows when a limit is set.
                let _ = fs::write(above.join("cgroup.subtree_control"), "+cpu +memory +pids");
                above.push(part);
                fs::create_dir_all(&above)?;
            }
            vec![above]
        } else {
            let mut folders = Vec::new();
            for hierarchy in ["memory", "cpu", "cpuacct"] {
                let root = Path::new(ROOT).join(hierarchy);
                if root.is_dir() {
                    let folder = root.join(relative);
                    fs::create_dir_all(&folder)?;
                    let folder = folder.canonicalize()?;
                    if !folders.contains(&folder) {
                        folders.push(folder);
                    }
                }
            }
            if folders.is_empty() {
                return Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup hierarchy is mounted"));
            }
            folders
        };
        let cgroup = Self { folders, unified };
        cgroup.limit(resources).inspect_err(|_| cgroup.remove())?;
        Ok(cgroup)
    }

    fn write(&self, file: &str, value: &str) -> io::Result<()> {
        let path = self.folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        let path = path.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no cgroup file {file}")))?;
        fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn read(&self, file: &str) -> Option<String> {
        self.folders.iter().find_map(|folder| fs::read_to_string(folder.join(file)).ok())
    }

    /// Sets the limits.
    pub(super) fn limit(&self, resources: &LinuxContainerResources) -> io::Result<()> {
        let LinuxContainerResources { cpu_period, cpu_quota, cpu_shares, memory_limit_in_bytes, .. } = resources;
        if self.unified {
            if *memory_limit_in_bytes > 0 {
                self.write("memory.max", &memory_limit_in_bytes.to_string())?;
            }
            if *cpu_quota > 0 {
                self.write("cpu.max", &format!("{cpu_quota} {cpu_period}"))?;
            }
            if *cpu_shares > 0 {
                // The kernel's own mapping of [2, 262144] onto [1, 10000].
                let weight = 1 + (cpu_shares.clamp(&2, &262_144) - 2) * 9_999 / 262_142;
                self.write("cpu.weight", &weight.to_string())?;
            }
        } else {
            if *memory_limit_in_bytes > 0 {
                self.write("memory.limit_in_bytes", &memory_limit_in_bytes.to_string())?;
            }
            if *cpu_quota > 0 {
                self.write("cpu.cfs_period_us", &cpu_period.to_string())?;
                self.write("cpu.cfs_quota_us", &cpu_quota.to_string())?;
            }
            if *cpu_shares > 0 {
                self.write("cpu.shares", &cpu_shares.to_string())?;
            }
        }
        Ok(())
    }

    /// The files through which a process joins.
    pub(super) fn joints(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Moves a process, and what it starts from now on, into the cgroup.
    pub(super) fn join(&self, pid: i32) -> io::Result<()> {
        self.joints().iter().try_for_each(|file| fs::write(file, pid.to_string()))
    }

    /// Processes in the cgroup.
    pub(super) fn processes(&self) -> Vec<i32> {
        let text = self.read("cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Whether the kernel killed a process for want of memory.
    pub(super) fn oom_killed(&self) -> bool {
        let text = self.read(if self.unified { "memory.events" } else { "memory.oom_control" }).unwrap_or_default();
        field(&text, "oom_kill").is_some_and(|count| count > 0)
    }

    /// What the cgroup has used.
    pub(super) fn usage(&self) -> Usage {
        let number = |file: &str| self.read(file).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let stat = self.read("memory.stat").unwrap_or_default();
        if self.unified {
            let cpu = self.read("cpu.stat").unwrap_or_default();
            Usage {
                cpu_nanos: field(&cpu, "usage_usec").unwrap_or(0) * 1000,
                working_set: number("memory.current").saturating_sub(field(&stat, "inactive_file").unwrap_or(0)),
                rss: field(&stat, "anon").unwrap_or(0),
            }
        } else {
            let cached = field(&stat, "total_inactive_file").unwrap_or(0);
            Usage {
                cpu_nanos: number("cpuacct.usage"),
                working_set: number("memory.usage_in_bytes").saturating_sub(cached),
                rss: field(&stat, "total_rss").unwrap_or(0),
            }
        }
    }

    /// Removes the cgroup, and its parents below the root as far as they are empty.
    pub(super) fn remove(&self) {
        for folder in &self.folders {
            let top = self.top(folder);
            let mut folder = folder.as_path();
            while folder != top {
                // Still in use by a process on its way out, or by another pod: whoever is last removes it.
                if fs::remove_dir(folder).is_err() && folder.exists() {
                    break;
                }
                match folder.parent() {
                    Some(parent) => folder = parent,
                    None => break,
                }
            }
        }
    }

    fn top(&self, folder: &Path) -> PathBuf {
        let depth = if self.unified { 4 } else { 5 };
        folder.iter().take(depth).collect()
    }

    /// Removes the cgroup once the kernel has let go of its last process.
    pub(super) async fn remove_when_empty(&self) {
        for _ in 0..20 {
            self.remove();
            if !self.folders.iter().any(|folder| folder.exists()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tracing::warn!(folders = ?self.folders, "cgroup can't be removed");
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}
