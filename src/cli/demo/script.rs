//! What happens in the demo, and when: two minutes, and then again.

use std::collections::BTreeMap;

use super::work::{Piece, SANDBOXED, Trouble};
use crate::task::{Json, NewTask, RetryPolicy};

/// The length of the play.
pub(super) const SECONDS: u64 = 120;

/// What the demo does.
pub(super) enum Act {
    /// Tells this to those who watch.
    Say(&'static str),
    Submit(Box<Draft>),
    /// Submits the first, and the others as its children.
    SubmitFamily(Box<Draft>, Vec<Draft>),
    /// Kills the worker that has the most to do.
    KillBusiest,
    /// Cancels the newest task with this title.
    Cancel(&'static str),
}

/// What happens in this second of the play.
pub(super) fn at(second: u64) -> Vec<Act> {
    let mut acts = scene(second);
    // Something small always comes in, so that the page never stands still.
    if second % 4 == 2 {
        acts.push(submit(mail(second)));
    }
    if second % 9 == 5 {
        acts.push(submit(document(second)));
    }
    acts
}

fn scene(second: u64) -> Vec<Act> {
    use Act::{Cancel, KillBusiest, Say};
    match second {
        0 => vec![
            Say(
                "Work comes in: reports, documents, films, a model to train. Watch the bars: steps, counts, time left.",
            ),
            submit(task("train.model", "Train the recommender, 60 epochs", 60, 1_200).user("grace").queue("gpu")),
            submit(task("media.transcode", TRAILER, 160, 500).user("linus").queue("media").label("film", "trailer")),
            submit(task("report.monthly", "Monthly report for October", 40, 500).user("ada").label("month", "2026-10")),
            submit(
                task("build.image", "Build shop:1.42", 30, 600).user("linus").queue("ci").label("commit", "9f3c2ab"),
            ),
            submit(document(0)),
            submit(nightly()),
        ],
        6 => vec![
            Say("A task's page has its log, in colours, and its history: open “Build shop:1.42”, for instance."),
            submit(task("build.image", "Build api:0.9", 20, 500).user("ada").queue("ci").flaky(2)),
        ],
        12 => {
            let mut acts = vec![Say(
                "A burst of mails. Some fail at first and are tried again, later each time; the task says why.",
            )];
            acts.extend((0..16).map(|n| submit(mail(100 + n))));
            acts.push(submit(task("webhook.deliver", "Tell the shop about order 1207", 2, 700).broken(3).user("shop")));
            acts
        }
        22 => vec![
            Say("More waits than can run. “Urgent” has priority 50, and is the next to start, though it came last."),
            submit(task("report.monthly", "Report for the board", 30, 500).user("ada")),
            submit(task("report.monthly", "Report for the auditors", 30, 500).user("ada")),
            submit(task("report.monthly", "Report for the tax office", 30, 500).user("ada")),
            submit(task("media.transcode", "Transcode interview.mov", 60, 400).user("linus").queue("media")),
            submit(task("media.transcode", "Transcode lecture-11.mov", 60, 400).user("linus").queue("media")),
            submit(task("media.transcode", "Transcode lecture-12.mov", 60, 400).user("linus").queue("media")),
            submit(task("media.transcode", "Transcode lecture-13.mov", 60, 400).user("linus").queue("media")),
            submit(task("report.monthly", "Urgent: figures for the press", 15, 400).priority(50).user("grace")),
        ],
        32 => vec![KillBusiest],
        46 => vec![
            Say(
                "A drawing whose worker runs out of memory. It is given to another worker once, and no more: “poison”.",
            ),
            submit(task(SANDBOXED, "Draw bomb.svg", 5, 300).trouble(Trouble::Deadly).crashes(2).user("linus")),
            submit(task(SANDBOXED, "Draw logo.svg", 12, 300).user("linus")),
        ],
        56 => vec![
            Say("The trailer is not needed any more: it is cancelled, and its worker puts things away."),
            Cancel(TRAILER),
        ],
        64 => {
            let parent = task("report.monthly", "Catalogue 2027", 40, 500).user("margaret").label("book", "catalogue");
            let chapters = (1..=6).map(|chapter| {
                let title = format!("Catalogue 2027, chapter {chapter}");
                task("ingest.pdf", &title, 24, 350).user("margaret").label("book", "catalogue")
            });
            vec![
                Say(
                    "A catalogue with six chapters, as tasks below one task. “margaret” in the filter shows hers alone.",
                ),
                Act::SubmitFamily(Box::new(parent), chapters.collect()),
            ]
        }
        76 => vec![
            Say("A report that stands still is ended when its time is over, and tried again."),
            submit(
                task("report.monthly", "Report from the old database", 16, 300)
                    .trouble(Trouble::Stuck)
                    .timeout(8)
                    .tries(2),
            ),
        ],
        82 => vec![
            submit(task("media.transcode", "Transcode concert.mov", 60, 500).user("linus").queue("media")),
            submit(task("media.transcode", "Transcode encore.mov", 50, 500).user("linus").queue("media")),
            submit(
                task("build.image", "Build search:3.1", 40, 500).user("grace").queue("ci").label("commit", "77d01ce"),
            ),
        ],
        90 => vec![KillBusiest],
        100 => vec![
            Say(
                "What was scheduled comes due. On the page: /, then a word, searches; the workers have a page of their own.",
            ),
            submit(nightly()),
        ],
        _ => Vec::new(),
    }
}

const TRAILER: &str = "Transcode trailer.mov";

fn nightly() -> Draft {
    task("report.monthly", "Nightly backup report", 12, 400).after(95).user("cron").label("kind", "nightly")
}

fn mail(n: u64) -> Draft {
    let title = format!("Mail reader {}", 1_000 + n * 37 % 900);
    let mail = task("mail.send", &title, 3, 300 + n * 53 % 400).user("newsletter").queue("mail").label("issue", "47");
    if n.is_multiple_of(3) { mail.flaky(4) } else { mail }
}

fn document(n: u64) -> Draft {
    const NAMES: [&str; 5] = ["contract", "invoice", "manual", "thesis", "minutes"];
    let title = format!("Read {}-{}.pdf", NAMES[n as usize % NAMES.len()], 10 + n);
    task("ingest.pdf", &title, 20 + n % 30, 250 + n * 31 % 200)
        .user("grace")
        .queue("documents")
        .label("source", "upload")
}

fn submit(draft: Draft) -> Act {
    Act::Submit(Box::new(draft))
}

/// A task that is made up.
pub(super) struct Draft {
    new: NewTask,
    piece: Piece,
}

fn task(task_type: &str, title: &str, items: u64, item_ms: u64) -> Draft {
    let new = NewTask { title: Some(title.into()), labels: BTreeMap::new(), ..NewTask::new(task_type) };
    Draft { new, piece: Piece { items, item_ms, trouble: None } }
}

impl Draft {
    /// The task, with its times divided by `speed`.
    pub(super) fn at_speed(self, speed: u32) -> NewTask {
        let Draft { mut new, mut piece } = self;
        let faster = |millis: &mut u64| *millis /= u64::from(speed);
        faster(&mut piece.item_ms);
        new.delay_ms.iter_mut().chain(&mut new.timeout_ms).for_each(faster);
        new.retry.iter_mut().for_each(|retry| faster(&mut retry.base_ms));
        NewTask { payload: Some(Json::of(&piece).expect("a payload of ours is JSON")), ..new }
    }

    fn trouble(mut self, trouble: Trouble) -> Draft {
        self.piece.trouble = Some(trouble);
        self
    }

    /// Its first try fails; it has so many.
    fn flaky(self, tries: u32) -> Draft {
        self.trouble(Trouble::Flaky).tries(tries)
    }

    /// All of its tries fail.
    fn broken(self, tries: u32) -> Draft {
        self.trouble(Trouble::Broken).tries(tries)
    }

    /// The wait before another is long enough to be seen.
    fn tries(mut self, tries: u32) -> Draft {
        self.new.max_attempts = Some(tries);
        self.new.retry = Some(RetryPolicy { base_ms: 4_000, jitter: 0.3, ..RetryPolicy::default() });
        self
    }

    fn crashes(mut self, crashes: u32) -> Draft {
        self.new.max_crashes = Some(crashes);
        self
    }

    fn user(mut self, user_id: &str) -> Draft {
        self.new.user_id = Some(user_id.into());
        self
    }

    fn queue(mut self, queue: &str) -> Draft {
        self.new.queue = Some(queue.into());
        self
    }

    fn label(mut self, key: &str, value: &str) -> Draft {
        self.new.labels.insert(key.into(), value.into());
        self
    }

    fn priority(mut self, priority: i8) -> Draft {
        self.new.priority = Some(priority);
        self
    }

    fn timeout(mut self, seconds: u64) -> Draft {
        self.new.timeout_ms = Some(seconds * 1_000);
        self
    }

    fn after(mut self, seconds: u64) -> Draft {
        self.new.delay_ms = Some(seconds * 1_000);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_play_has_every_kind_of_task() {
        let mut new = Vec::new();
        let (mut kills, mut cancelled) = (0, Vec::new());
        for act in (0..SECONDS).flat_map(at) {
            match act {
                Act::Submit(draft) => new.push(draft.at_speed(1)),
                Act::SubmitFamily(parent, children) => {
                    new.extend(std::iter::once(*parent).chain(children).map(|draft| draft.at_speed(1)));
                }
                Act::KillBusiest => kills += 1,
                Act::Cancel(title) => cancelled.push(title),
                Act::Say(words) => assert!(words.len() < 120, "{words}"),
            }
        }
        let has = |what: &str, is: fn(&NewTask) -> bool| assert!(new.iter().any(is), "none with {what}");
        has("a delay", |task| task.delay_ms.is_some());
        has("a priority", |task| task.priority > Some(0));
        has("a timeout", |task| task.timeout_ms.is_some());
        has("a crash budget", |task| task.max_crashes.is_some());
        has("tries", |task| task.max_attempts.is_some());
        let titles: Vec<_> = new.iter().filter_map(|task| task.title.as_deref()).collect();
        assert!(cancelled.iter().all(|title| titles.contains(title)), "{cancelled:?}");
        let types: std::collections::BTreeSet<_> = new.iter().map(|task| task.task_type.as_str()).collect();
        assert_eq!((types.len(), kills), (8, 2), "{types:?}");
        // So much at once fits into a terminal and a page; a second round begins before it is over.
        assert!(new.len() < 120, "{}", new.len());
    }
}
