//! The results as Markdown.

use std::fmt::Write;
use std::time::Duration;

use crate::load::{Load, Outcome, Row, Usage};
use crate::peer::{Batch, DELTAS, PAUSE, Way};
use crate::process::Memory;
use crate::statistics::{median, percentile};
use crate::support::codex::codex;

/// From this part of the time on, something is the limit.
const MOST: f64 = 0.5;
/// From this part of the processors' time on, they are the limit.
const BUSY: f64 = 0.8;

/// All tables.
pub(crate) fn tables(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let processors = outcomes[0].rows[0].usage.processors;
    let syncs: Vec<f64> = outcomes.iter().flat_map(|outcome| outcome.syncs.iter().map(ms)).collect();
    let _ = writeln!(
        text,
        "Codex {}, {processors} processors; a turn of {DELTAS} deltas with pauses of {} ms. A sync of the disk took {:.1} ms \
         (p95 {:.1} ms).\n",
        codex().version,
        PAUSE.as_millis(),
        median(&syncs),
        percentile(&syncs, 0.95)
    );
    text.push_str(&times(outcomes));
    text.push('\n');
    text.push_str(&costs(outcomes));
    text
}

fn times(outcomes: &[Outcome]) -> String {
    let mut text = "| load | way | accepted, ms | p95 | first delta, ms | p95 | × alone | end of turn, ms | p95 | × alone |\n\
                    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        .to_owned();
    for outcome in outcomes {
        for row in &outcome.rows {
            let mut cells = vec![name(outcome.load), row.way.name().to_owned()];
            let accepted: fn(&Batch) -> &[Duration] = |batch| &batch.accepted;
            for of in [accepted, |batch| &batch.first_deltas, |batch| &batch.ends] {
                let all: Vec<f64> = row.batches.iter().flat_map(of).map(ms).collect();
                cells.push(format!("{:.1}", median(&all)));
                cells.push(format!("{:.1}", percentile(&all, 0.95)));
                if of as usize != accepted as usize {
                    cells.push(ratio(&outcome.rows[0], row, of));
                }
            }
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text
}

/// The median of the ratios of the rounds.
fn ratio(alone: &Row, row: &Row, of: fn(&Batch) -> &[Duration]) -> String {
    if row.way == Way::Alone {
        return "1".to_owned();
    }
    let medians = |row: &Row| -> Vec<f64> {
        row.batches.iter().map(|batch| median(&of(batch).iter().map(ms).collect::<Vec<_>>())).collect()
    };
    let ratios: Vec<f64> =
        medians(row).into_iter().zip(medians(alone)).map(|(mine, alone)| mine / alone).collect();
    format!("{:.2}", median(&ratios))
}

fn costs(outcomes: &[Outcome]) -> String {
    let mut text = "| load | way | CPU per turn, ms: Codex | codexd | RSS (PSS), MB: Codex | codexd | syncs per turn × ms \
                    | CPU: Codex | codexd | clients, model | other | limit |\n\
                    | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n"
        .to_owned();
    for outcome in outcomes {
        for row in &outcome.rows {
            let is_alone = row.way == Way::Alone;
            let of_codexd = |cell: String| if is_alone { "–".to_owned() } else { cell };
            let (codex, codexd) = row.cpu_per_turn;
            let usage = &row.usage;
            let cells = [
                name(outcome.load),
                row.way.name().to_owned(),
                format!("{:.1}", ms(&codex.total)),
                of_codexd(format!("{:.2}", ms(&codexd.total))),
                memory(Some(row.memory.0)),
                memory(row.memory.1),
                of_codexd(format!("{:.1} × {:.1}", row.syncs.0, row.syncs.1 * 1e3)),
                percent(usage.share(usage.codex.total)),
                of_codexd(percent(usage.share(usage.codexd.total))),
                percent(usage.share(usage.clients.total)),
                percent(usage.share(usage.others())),
                limit(outcome.load, row),
            ];
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
    }
    text
}

/// What most of the time of a turn is.
fn limit(load: Load, row: &Row) -> String {
    let ends: Vec<f64> = row.batches.iter().flat_map(|batch| &batch.ends).map(ms).collect();
    let of_model = ms(&(PAUSE * DELTAS as u32)) / median(&ends);
    if of_model >= MOST {
        return format!("model, {} of the turn", percent(of_model));
    }
    let usage = &row.usage;
    let busy = usage.share(usage.machine);
    if busy >= BUSY {
        return format!("CPU, {} busy, most by {}", percent(busy), most(usage));
    }
    let syncing =
        row.syncs.0 * row.syncs.1 * (load.sessions * row.batches.len()) as f64 / usage.elapsed.as_secs_f64();
    if syncing >= MOST {
        return format!("disk, syncs {} of the time", percent(syncing));
    }
    format!("none: CPU {} busy, syncs {} of the time", percent(busy), percent(syncing))
}

/// What used most of the processors, with its part in the kernel.
fn most(usage: &Usage) -> String {
    let all = [("Codex", usage.codex), ("codexd", usage.codexd), ("clients and model", usage.clients)];
    let (name, cpu) = all.into_iter().max_by_key(|(_, cpu)| cpu.total).unwrap();
    format!("{name} ({} of it in the kernel)", percent(cpu.kernel.as_secs_f64() / cpu.total.as_secs_f64()))
}

fn name(load: Load) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", count(load.clients, "client"), count(load.sessions, "session"))
}

fn memory(memory: Option<Memory>) -> String {
    memory.map_or("–".to_owned(), |Memory { rss, pss }| {
        format!("{:.0} ({:.0})", rss as f64 / 1024.0, pss as f64 / 1024.0)
    })
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn ms(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
