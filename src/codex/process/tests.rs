#[cfg(target_os = "linux")]
mod real;

use rustix::process::Pid;

use super::filter::ProcessFilter;
use super::info::ProcessInfo;

fn seen(pid: i32, parent: i32, is_marked: bool) -> ProcessInfo {
    ProcessInfo {
        pid: Pid::from_raw(pid).unwrap(),
        parent,
        group: pid,
        start_time: String::new(),
        has_ended: false,
        is_marked,
        is_program: false,
    }
}

fn ours(descendants: bool, excluded: &[i32]) -> ProcessFilter {
    let excluded = excluded.iter().map(|&pid| Pid::from_raw(pid).unwrap()).collect();
    ProcessFilter { includes_descendants: descendants, excluded, ..ProcessFilter::marked("i") }
}

fn among(ours: &ProcessFilter, seen: &[ProcessInfo], me: i32) -> Vec<i32> {
    let ours = ours.among(seen, Pid::from_raw(me).unwrap());
    ours.iter().map(|one| one.pid.as_raw_nonzero().get()).collect()
}

#[test]
fn process_filter_selects_marked_processes_and_descendants() {
    // 10 is this process, 5 its parent, 11 its guard, 20 the app-server with two descendants, 30 an orphan.
    let all = [
        seen(1, 0, false),
        seen(5, 1, true),
        seen(10, 5, false),
        seen(11, 10, true),
        seen(12, 11, false),
        seen(20, 10, true),
        seen(21, 20, false),
        seen(22, 21, false),
        seen(30, 1, true),
        seen(31, 1, false),
        seen(40, 10, false),
        seen(50, 5, false),
    ];
    assert_eq!(among(&ours(false, &[11]), &all, 10), [20, 21, 22, 30]);
    assert_eq!(among(&ours(true, &[11]), &all, 10), [20, 21, 22, 30, 40]);
    assert_eq!(among(&ours(true, &[11, 20]), &all, 10), [30, 40]);
    let other_process =
        |start_time: &str| ProcessInfo { start_time: start_time.to_owned(), ..seen(40, 10, false) };
    let with_stranger = |start_time| ProcessFilter {
        preexisting_children: vec![other_process(start_time)],
        ..ours(true, &[11])
    };
    assert_eq!(among(&with_stranger(""), &all, 10), [20, 21, 22, 30]);
    assert_eq!(
        among(&with_stranger("before it"), &all, 10),
        [20, 21, 22, 30, 40],
        "its number went to another"
    );
    let mut with_ended = all.to_vec();
    with_ended[5].has_ended = true;
    assert_eq!(among(&ours(false, &[11]), &with_ended, 10), [21, 22, 30]);
}

#[test]
fn sandbox_belongs_to_the_thread_of_its_command() {
    // 20 is the app-server with the sandboxes 30 and 40, each with an inner helper that starts the command; 50 is a command
    // without sandbox.
    let all = [
        seen(20, 1, true),
        seen(30, 20, true),
        seen(31, 30, true),
        seen(32, 31, true),
        seen(40, 20, true),
        seen(41, 40, true),
        seen(50, 20, true),
    ];
    let ended = |expected_pids: &[i32]| -> Vec<i32> {
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        let found = super::sandbox::outermost(
            &all,
            |pid| [30, 31, 40].contains(&number(pid)),
            |pid| expected_pids.contains(&number(pid)),
        );
        found.iter().map(|one| number(one.pid)).collect()
    };
    assert_eq!(ended(&[32]), [30]);
    assert_eq!(ended(&[40]), [40]);
    assert_eq!(ended(&[20, 30, 31, 32, 40, 41, 50]), [30, 40]);
    assert_eq!(ended(&[20, 50]), [0; 0]);
}

#[test]
fn process_filter_follows_known_processes_and_their_groups() {
    use super::info::KnownProcess;
    let in_group = |pid, parent, group| ProcessInfo { group, ..seen(pid, parent, false) };
    // 10 is this process in the group 5. 20 was the app-server, 30 a command that still runs, 40 one that has ended.
    let known = [in_group(20, 10, 20), in_group(30, 20, 30), in_group(40, 20, 40), in_group(45, 20, 5)];
    let known = known.each_ref().map(KnownProcess::of);
    let all = [
        in_group(5, 1, 5),
        in_group(10, 5, 5),
        in_group(30, 1, 30),
        in_group(31, 30, 31),
        in_group(41, 1, 40),
        in_group(42, 41, 42),
        in_group(50, 5, 5),
        in_group(60, 1, 60),
    ];
    let family = |all: &[ProcessInfo]| -> Vec<i32> {
        let filter = ours(false, &[]);
        let found = filter.family(all, &known, Pid::from_raw(10).unwrap());
        found.iter().map(|one| one.pid.as_raw_nonzero().get()).collect()
    };
    assert_eq!(family(&all), [30, 31, 41, 42]);
    // The number of the ended command is that of another process now, which leads a group of its own.
    let mut reused = all.to_vec();
    reused.push(ProcessInfo { start_time: "later".to_owned(), ..in_group(40, 1, 40) });
    assert_eq!(family(&reused), [30, 31]);
}

#[test]
fn process_filter_terminates_on_cyclic_parents() {
    let all = [seen(2, 3, false), seen(3, 2, false), seen(4, 4, false), seen(5, 9, true)];
    assert_eq!(among(&ours(true, &[]), &all, 7), [5]);
}

#[test]
fn process_listing_of_macos_is_parsed() {
    let text = "  1     0   1 Ss   Thu Nov 20 05:54:56 2026     /sbin/launchd\n\
                501   1 501 Z    Thu Nov  6 05:54:56 2026     (codex)\n\
                502 501 501 S+   Thu Nov 20 05:54:57 2026     sleep 300 PATH=/bin X_I=1 BAA=2\n\
                invalid line\n";
    let found = super::ps::parse(text, "X_I=1");
    let summary: Vec<_> = found
        .iter()
        .map(|one| {
            (
                one.pid.as_raw_nonzero().get(),
                one.parent,
                one.group,
                one.start_time.as_str(),
                one.has_ended,
                one.is_marked,
            )
        })
        .collect();
    assert_eq!(
        summary,
        [
            (1, 0, 1, "Thu Nov 20 05:54:56 2026", false, false),
            (501, 1, 501, "Thu Nov 6 05:54:56 2026", true, false),
            (502, 501, 501, "Thu Nov 20 05:54:57 2026", false, true),
        ]
    );
    assert!(super::ps::PS_COLUMNS.ends_with("command="));
}
