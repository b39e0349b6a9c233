//! What the system tells of this process; nothing where it has no `/proc`.

use super::text::Text;

/// What Linux has on the machines this is built for.
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_BYTES: u64 = 4096;

pub(super) fn write(out: &mut Text) {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/self/stat");
    // The fields behind the program's name, which may hold anything; that is the second one, so the third has number 0 here.
    let fields: Vec<_> = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace().collect();
    let field = |i: usize| number(fields.get(i).copied());
    if let (Some(user), Some(system)) = (field(11), field(12)) {
        let seconds = (user + system) as f64 / TICKS_PER_SECOND;
        out.seconds("counter", "process_cpu_seconds_total", "CPU time in seconds.", seconds);
    }
    let system = read("/proc/stat");
    let boot = system.lines().find_map(|line| number(line.strip_prefix("btime ")));
    if let (Some(boot), Some(start)) = (boot, field(19)) {
        let seconds = boot as f64 + start as f64 / TICKS_PER_SECOND;
        out.seconds("gauge", "process_start_time_seconds", "When the process started, in Unix time.", seconds);
    }
    if let (Some(bytes), Some(pages)) = (field(20), field(21)) {
        out.gauge("process_virtual_memory_bytes", "Virtual memory in bytes.", bytes);
        out.gauge("process_resident_memory_bytes", "Resident memory in bytes.", pages * PAGE_BYTES);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let open = open.count() as u64;
        out.gauge("process_open_fds", "Open file descriptors.", open);
        out.gauge("os_fd_used", "Open file descriptors.", open);
    }
    let limits = read("/proc/self/limits");
    let most = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    if let Some(most) = number(most) {
        out.gauge("process_max_fds", "Most file descriptors that may be open.", most);
        out.gauge("os_fd_limit", "Most file descriptors that may be open.", most);
    }
}
