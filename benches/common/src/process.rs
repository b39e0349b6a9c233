//! What Linux knows of a process: its CPU time, memory and disk writes.

use std::{fs, io};

/// Ticks per second of the times in `/proc/PID/stat`: `USER_HZ`, 100 on every Linux that Rust's std runs on.
const TICKS: f64 = 100.0;

/// A process's use of the machine since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu: f64,
    /// Bytes that it caused to be written to disk.
    pub written: u64,
    /// Bytes of memory resident now, files that it has mapped included.
    pub resident: u64,
    /// Those of them that belong to no file.
    pub anonymous: u64,
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            written: self.written + other.written,
            resident: self.resident + other.resident,
            anonymous: self.anonymous + other.anonymous,
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(usages: I) -> Self {
        usages.fold(Self::default(), |sum, usage| sum + usage)
    }
}

/// The number behind a label in a file of `/proc`.
fn labelled(text: &str, label: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
}

/// Reads what a process has used.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}"));
    let missing = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid} does not tell {what}"));
    let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
    // The name in parentheses may hold spaces; the times are the 12th and 13th field behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).ok_or_else(|| missing("CPU time"));
    let kib = |label| labelled(&status, label).map(|kib| kib * 1024).ok_or_else(|| missing(label));
    Ok(Usage {
        cpu: (ticks(11)? + ticks(12)?) / TICKS,
        written: labelled(&io, "write_bytes:").ok_or_else(|| missing("bytes written"))?,
        resident: kib("VmRSS:")?,
        anonymous: kib("RssAnon:")?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_uses_memory() {
        let usage = super::usage(std::process::id()).unwrap();
        assert!(usage.resident >= usage.anonymous && usage.anonymous > 0, "{usage:?}");
    }
}
