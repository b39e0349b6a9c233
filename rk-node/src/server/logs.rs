//! Reading container logs: the tail, from a time on, following, across rotated files.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::mpsc;

/// What a client wants of a log: the fields of `PodLogOptions`.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogOptions {
    pub(crate) follow: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit_bytes: Option<usize>,
    /// Only this stream: `Stdout` or `Stderr`.
    pub(crate) stream: Option<String>,
}

/// One record of a log file.
struct Record<'a> {
    time: &'a str,
    stream: &'a str,
    partial: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Record<'_>> {
    let mut words = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(words.next()?).ok()?;
    let stream = std::str::from_utf8(words.next()?).ok()?;
    let tag = words.next()?;
    Some(Record { time, stream, partial: tag.first() == Some(&b'P'), text: words.next().unwrap_or_default() })
}

/// The files of a log, oldest first; compressed ones are left out.
fn files(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return vec![path.to_owned()];
    };
    let prefix = format!("{name}.");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(&prefix) && !name.ends_with(".gz") && !name.ends_with(".tmp")
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found.push(path.to_owned());
    found
}

/// Where the last `lines` lines of a file begin, and how many of them it has.
fn tail_offset(file: &mut File, lines: usize) -> std::io::Result<(u64, usize)> {
    let mut at = file.metadata()?.len();
    let (mut found, mut buffer) = (0, vec![0; 64 * 1024]);
    let mut last = true;
    while at > 0 {
        let piece = usize::try_from(at).unwrap_or(usize::MAX).min(buffer.len());
        at -= piece as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut buffer[..piece])?;
        for index in (0..piece).rev() {
            if buffer[index] == b'\n' {
                // The newline that ends the file begins no line.
                if !std::mem::take(&mut last) {
                    // A part of a line does not count as one.
                    found += 1;
                }
                if found == lines {
                    return Ok((at + index as u64 + 1, lines));
                }
            }
            last = false;
        }
    }
    Ok((0, found + usize::from(!last)))
}

/// Sends the log's text piece by piece, until its end, or (following) until `ended` says that no more will come.
pub(crate) fn read(
    path: &Path,
    options: &LogOptions,
    ended: impl Fn() -> bool + Send + Sync + 'static,
) -> mpsc::Receiver<Result<Bytes, std::io::Error>> {
    let (sender, receiver) = mpsc::channel(8);
    let (path, options) = (path.to_owned(), options.clone());
    tokio::spawn(async move {
        let mut reading = Reading { sender, left: options.limit_bytes, options, partial: false };
        if let Err(error) = reading.run(&path, ended).await {
            // The client may be gone.
            let _ = reading.sender.send(Err(error)).await;
        }
    });
    receiver
}

/// How often a followed file is looked at for more.
const LOOK: Duration = Duration::from_millis(100);

struct Reading {
    sender: mpsc::Sender<Result<Bytes, std::io::Error>>,
    options: LogOptions,
    left: Option<usize>,
    /// The last record was a part of a line.
    partial: bool,
}

impl Reading {
    async fn run(&mut self, path: &Path, ended: impl Fn() -> bool) -> std::io::Result<()> {
        let mut files = files(path);
        let mut offset = 0;
        if let Some(lines) = self.options.tail {
            let mut wanted = lines;
            let mut from = files.len();
            while from > 0 && (wanted > 0 || from == files.len()) {
                from -= 1;
                let (at, found) = match File::open(&files[from]) {
                    Ok(mut file) if wanted > 0 => tail_offset(&mut file, wanted)?,
                    Ok(file) => (file.metadata()?.len(), 0),
                    Err(_) => (0, 0),
                };
                offset = at;
                wanted -= found.min(wanted);
            }
            files.drain(..from);
        }
        let last = files.len().saturating_sub(1);
        for (index, file) in files.iter().enumerate() {
            let at = if index == 0 { offset } else { 0 };
            let more = if index == last { self.current(file, at, &ended).await? } else { self.all(file, at).await? };
            if !more {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads a file that is not written any more.
    async fn all(&mut self, path: &Path, offset: u64) -> std::io::Result<bool> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        self.pass(&mut reader, &mut Vec::new()).await
    }

    /// Reads the file that is being written, and follows it over rotations.
    async fn current(&mut self, path: &Path, offset: u64, ended: &impl Fn() -> bool) -> std::io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset))?;
        let mut inode = file.metadata()?.ino();
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        loop {
            // Asked before reading: what was written before the end is still read.
            let over = ended();
            if !self.pass(&mut reader, &mut line).await? {
                return Ok(false);
            }
            if !self.options.follow || over {
                return Ok(true);
            }
            let rotated = std::fs::metadata(path).is_ok_and(|meta| meta.ino() != inode);
            if rotated && self.pass(&mut reader, &mut line).await? {
                let file = File::open(path)?;
                inode = file.metadata()?.ino();
                reader = BufReader::with_capacity(64 * 1024, file);
                continue;
            }
            tokio::select! {
                () = self.sender.closed() => return Ok(false),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Sends all whole records that there are; `line` keeps an unfinished one. Answers whether more is wanted.
    async fn pass(&mut self, reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<bool> {
        let mut out = Vec::new();
        loop {
            let read = reader.read_until(b'\n', line)?;
            let whole = line.last() == Some(&b'\n');
            if whole {
                line.pop();
                self.render(line, &mut out);
                line.clear();
            }
            if out.len() >= 32 * 1024 || read == 0 || !whole {
                if !self.send(std::mem::take(&mut out)).await {
                    return Ok(false);
                }
                if read == 0 || !whole {
                    return Ok(true);
                }
            }
        }
    }

    fn render(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let Some(record) = parse(line) else { return };
        let wanted = self.options.stream.as_deref().filter(|stream| *stream != "All");
        if wanted.is_some_and(|wanted| !wanted.eq_ignore_ascii_case(record.stream)) {
            return;
        }
        if let Some(since) = self.options.since
            && record.time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        if self.options.timestamps && !self.partial {
            out.extend_from_slice(record.time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(record.text);
        self.partial = record.partial;
        if !record.partial {
            out.push(b'\n');
        }
    }

    async fn send(&mut self, mut piece: Vec<u8>) -> bool {
        if let Some(left) = &mut self.left {
            piece.truncate(*left);
            *left -= piece.len();
        }
        if !piece.is_empty() && self.sender.send(Ok(piece.into())).await.is_err() {
            return false;
        }
        self.left != Some(0)
    }
}

/// The end of a container's output, for a termination message: at most so many lines and bytes.
pub(crate) fn last_lines(path: &Path, lines: usize, bytes: usize) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let (at, _) = tail_offset(&mut file, lines)?;
        file.seek(SeekFrom::Start(at))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    let mut out = Vec::new();
    for line in read().unwrap_or_default().split(|byte| *byte == b'\n') {
        if let Some(record) = parse(line) {
            out.extend_from_slice(record.text);
            if !record.partial {
                out.push(b'\n');
            }
        }
    }
    let skip = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[skip..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn text(path: &Path, options: LogOptions) -> String {
        let mut pieces = read(path, &options, || true);
        let mut all = Vec::new();
        while let Some(piece) = pieces.recv().await {
            all.extend(piece.unwrap());
        }
        String::from_utf8(all).unwrap()
    }

    fn log() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(
            dir.path().join("0.log.20260101-000000"),
            "2026-01-01T00:00:00.000000001Z stdout F one\n2026-01-01T00:00:01Z stderr F two\n",
        )
        .unwrap();
        std::fs::write(
            &path,
            "2026-01-01T00:00:02Z stdout P thr\n2026-01-01T00:00:03Z stdout F ee\n2026-01-01T00:00:04Z stdout F four\n",
        )
        .unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn logs_are_read_as_asked() {
        let (_dir, path) = log();
        let of = |options| text(&path, options);
        assert_eq!(of(LogOptions::default()).await, "one\ntwo\nthree\nfour\n");
        assert_eq!(of(LogOptions { tail: Some(1), ..LogOptions::default() }).await, "four\n");
        assert_eq!(of(LogOptions { tail: Some(0), ..LogOptions::default() }).await, "");
        assert_eq!(of(LogOptions { tail: Some(4), ..LogOptions::default() }).await, "two\nthree\nfour\n");
        assert_eq!(of(LogOptions { tail: Some(99), ..LogOptions::default() }).await, "one\ntwo\nthree\nfour\n");
        assert_eq!(of(LogOptions { limit_bytes: Some(5), ..LogOptions::default() }).await, "one\nt");
        let since = Some("2026-01-01T00:00:02.5Z".parse().unwrap());
        assert_eq!(of(LogOptions { since, ..LogOptions::default() }).await, "ee\nfour\n");
        let stamped = of(LogOptions { timestamps: true, tail: Some(1), ..LogOptions::default() }).await;
        assert_eq!(stamped, "2026-01-01T00:00:04Z four\n");
        let errors = LogOptions { stream: Some("Stderr".into()), ..LogOptions::default() };
        assert_eq!(of(errors).await, "two\n");
        assert_eq!(last_lines(&path, 80, 6), "\nfour\n");
    }

    #[tokio::test]
    async fn following_sees_what_is_written_and_goes_over_rotations() {
        let (dir, path) = log();
        let options = LogOptions { follow: true, tail: Some(1), ..LogOptions::default() };
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let flag = over.clone();
        let mut pieces = read(&path, &options, move || flag.load(std::sync::atomic::Ordering::SeqCst));
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "four\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-01T00:00:05Z stdout F five\n").unwrap();
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "five\n");
        std::fs::rename(&path, dir.path().join("0.log.20260101-000006")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:06Z stdout F six\n").unwrap();
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "six\n");
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(pieces.recv().await.is_none());
    }
}
