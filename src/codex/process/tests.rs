#[cfg(target_os = "linux")]
mod real;

use rustix::process::Pid;

use super::filter::Ours;
use super::info::Seen;

fn seen(pid: i32, parent: i32, marked: bool) -> Seen {
    Seen { pid: Pid::from_raw(pid).unwrap(), parent, started: String::new(), ended: false, marked }
}

fn ours(descendants: bool, spared: &[i32]) -> Ours {
    let spared = spared.iter().map(|&pid| Pid::from_raw(pid).unwrap()).collect();
    Ours { descendants, spared, ..Ours::marked("i") }
}

fn among(ours: &Ours, seen: &[Seen], me: i32) -> Vec<i32> {
    let ours = ours.among(seen, Pid::from_raw(me).unwrap());
    ours.iter().map(|one| one.pid.as_raw_nonzero().get()).collect()
}

#[test]
fn ours_are_the_marked_ones_and_what_descends_from_them() {
    // 10 looks, 5 is its parent, 11 its guard, 20 the app-server with two below it, 30 an orphan.
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
    let stranger = |started: &str| Seen { started: started.to_owned(), ..seen(40, 10, false) };
    let with_stranger = |started| Ours { strangers: vec![stranger(started)], ..ours(true, &[11]) };
    assert_eq!(among(&with_stranger(""), &all, 10), [20, 21, 22, 30]);
    assert_eq!(
        among(&with_stranger("before it"), &all, 10),
        [20, 21, 22, 30, 40],
        "its number went to another"
    );
    let mut with_ended = all.to_vec();
    with_ended[5].ended = true;
    assert_eq!(among(&ours(false, &[11]), &with_ended, 10), [21, 22, 30]);
}

#[test]
fn a_sandbox_is_that_of_the_thread_whose_command_runs_in_it() {
    // The app-server 20 with the sandboxes 30 and 40, in each of which another helper starts the command; 50 is a command
    // without a sandbox.
    let all = [
        seen(20, 1, true),
        seen(30, 20, true),
        seen(31, 30, true),
        seen(32, 31, true),
        seen(40, 20, true),
        seen(41, 40, true),
        seen(50, 20, true),
    ];
    let ended = |wanted: &[i32]| -> Vec<i32> {
        let number = |pid: Pid| pid.as_raw_nonzero().get();
        let found = super::sandbox::outermost(
            &all,
            |pid| [30, 31, 40].contains(&number(pid)),
            |pid| wanted.contains(&number(pid)),
        );
        found.iter().map(|one| number(one.pid)).collect()
    };
    assert_eq!(ended(&[32]), [30]);
    assert_eq!(ended(&[40]), [40]);
    assert_eq!(ended(&[20, 30, 31, 32, 40, 41, 50]), [30, 40]);
    assert_eq!(ended(&[20, 50]), [0; 0]);
}

#[test]
fn a_listing_that_leads_in_circles_is_no_trap() {
    let all = [seen(2, 3, false), seen(3, 2, false), seen(4, 4, false), seen(5, 9, true)];
    assert_eq!(among(&ours(true, &[]), &all, 7), [5]);
}

#[test]
fn a_listing_of_macos_is_read() {
    let text = "  1     0 Ss   Thu Nov 20 05:54:56 2026     /sbin/launchd\n\
                501   1 Z    Thu Nov  6 05:54:56 2026     (codex)\n\
                502 501 S+   Thu Nov 20 05:54:57 2026     sleep 300 PATH=/bin X_I=1 BAA=2\n\
                garbage\n";
    let found = super::ps::parse(text, "X_I=1");
    let summary: Vec<_> = found
        .iter()
        .map(|one| (one.pid.as_raw_nonzero().get(), one.parent, one.started.as_str(), one.ended, one.marked))
        .collect();
    assert_eq!(
        summary,
        [
            (1, 0, "Thu Nov 20 05:54:56 2026", false, false),
            (501, 1, "Thu Nov 6 05:54:56 2026", true, false),
            (502, 501, "Thu Nov 20 05:54:57 2026", false, true),
        ]
    );
    assert!(super::ps::COLUMNS.ends_with("command="));
}
