//! Callbacks: URLs that a task tells its transitions to, as they are asked for and as a record keeps them.

use std::sync::Arc;

use hyper::Uri;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use url::Url;

use super::bounds::{list, optional_list};
use super::new_task::NewTask;
use super::{Author, Event, Invalid};

/// The most callbacks of a task.
pub const CALLBACKS_MAX: usize = 4;
/// The longest URL of a callback, in bytes as it is written down: what any server takes.
pub const CALLBACK_URL_BYTES_MAX: usize = 2_048;
/// What is told where nothing is said.
const USUAL: [Event; 3] = [Event::Completed, Event::Failed, Event::Cancelled];

/// A callback of a new task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCallback {
    /// `http` or `https`, without user and password.
    pub url: String,
    /// What it is told, as the word after `task.`; the three finals unless said.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "events")]
    pub events: Option<Vec<String>>,
}

/// The callbacks of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Callbacks {
    list: Vec<Callback>,
    /// They end with it. A record says it beside the list.
    #[serde(skip)]
    author: Option<Author>,
}

/// A URL that is told of some transitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// As the URL standard writes it.
    pub url: Box<str>,
    pub events: Events,
}

/// A set of events; written as the words after `task.`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u16);

pub(super) fn callbacks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<NewCallback>, D::Error> {
    optional_list(deserializer, CALLBACKS_MAX, "callbacks").map(Option::unwrap_or_default)
}

fn events<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    optional_list(deserializer, Event::ALL.len(), "events")
}

impl NewCallback {
    /// A callback at this URL that is told how a task ended.
    pub fn new(url: impl Into<String>) -> NewCallback {
        NewCallback { url: url.into(), events: None }
    }

    /// The same, told these events: the words after `task.`.
    pub fn on(url: impl Into<String>, events: impl IntoIterator<Item = impl Into<String>>) -> NewCallback {
        NewCallback { url: url.into(), events: Some(events.into_iter().map(Into::into).collect()) }
    }

    /// Looks at each of these; what is found wrong is said with its place.
    pub fn each(
        callbacks: &[NewCallback],
        mut look: impl FnMut(&NewCallback) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        callbacks.iter().enumerate().try_for_each(|(at, callback)| {
            look(callback).map_err(|invalid| invalid.within(format_args!("callbacks[{at}]")))
        })
    }

    /// What a record keeps of it.
    fn checked(&self) -> Result<Callback, Invalid> {
        Ok(Callback { url: self.checked_url()?.as_str().into(), events: self.checked_events()? })
    }

    /// The URL, where a callback may have it. Which addresses may be called is for the hub to say.
    pub fn checked_url(&self) -> Result<Url, Invalid> {
        let wrong = |detail: &str| Invalid::value("url", detail);
        let over = || Invalid::limit("url", CALLBACK_URL_BYTES_MAX as u64, "bytes");
        if self.url.len() > CALLBACK_URL_BYTES_MAX {
            return Err(over());
        }
        let mut url = Url::parse(&self.url).map_err(|why| wrong(&format!("must be a URL: {why}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not have a user or a password in it: it is seen by all who see the task"));
        }
        if url.port() == Some(0) {
            return Err(wrong("must not have port 0"));
        }
        // It is not sent.
        url.set_fragment(None);
        if url.as_str().len() > CALLBACK_URL_BYTES_MAX {
            return Err(over());
        }
        // The URL standard takes some more characters in names than a request can.
        match Uri::try_from(url.as_str()) {
            Ok(_) => Ok(url),
            Err(why) => Err(wrong(&format!("must be a URL that can be called: {why}"))),
        }
    }

    fn checked_events(&self) -> Result<Events, Invalid> {
        let Some(words) = &self.events else { return Ok(Events::of(&USUAL)) };
        if words.is_empty() {
            return Err(Invalid::value("events", "must not be empty; without it, it is told how the task ended"));
        }
        let mut events = Events::default();
        for (at, word) in words.iter().enumerate() {
            let event = event_of(word).ok_or_else(|| {
                let known: Vec<&str> = Event::ALL.into_iter().map(word_of).collect();
                Invalid::value(format!("events[{at}]"), format!("must be one of {}", known.join(", ")))
            })?;
            events.insert(event);
        }
        Ok(events)
    }
}

impl<T: Into<String>> From<T> for NewCallback {
    fn from(url: T) -> NewCallback {
        NewCallback::new(url)
    }
}

impl NewTask {
    pub(super) fn check_callbacks(&self) -> Result<(), Invalid> {
        if self.callbacks.len() > CALLBACKS_MAX {
            return Err(Invalid::limit("callbacks", CALLBACKS_MAX as u64, "callbacks"));
        }
        self.each_callback(|callback| callback.checked().map(drop))
    }

    /// Looks at each callback; what is found wrong is said with its place.
    pub fn each_callback(&self, look: impl FnMut(&NewCallback) -> Result<(), Invalid>) -> Result<(), Invalid> {
        NewCallback::each(&self.callbacks, look)
    }
}

impl Callbacks {
    /// What a record keeps of those of a new task, which have passed all checks; `None` where there are none.
    pub fn of(new: &[NewCallback], author: Option<Author>) -> Option<Arc<Callbacks>> {
        let list: Vec<Callback> = new.iter().filter_map(|callback| callback.checked().ok()).collect();
        (!list.is_empty()).then(|| Arc::new(Callbacks { list, author }))
    }

    /// The same, of this author.
    pub(super) fn by(mut self: Arc<Callbacks>, author: Option<Author>) -> Arc<Callbacks> {
        if author.is_some() {
            Arc::make_mut(&mut self).author = author;
        }
        self
    }

    /// Who had them called, where they end with it.
    pub fn author(&self) -> Option<Author> {
        self.author
    }

    /// Each of them, with its place.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Callback)> {
        (0..).zip(&self.list)
    }
}

impl Events {
    fn of(events: &[Event]) -> Events {
        let mut set = Events::default();
        events.iter().for_each(|event| set.insert(*event));
        set
    }

    fn insert(&mut self, event: Event) {
        self.0 |= 1 << event as u16;
    }

    /// Whether it is among them.
    pub fn has(self, event: Event) -> bool {
        self.0 & 1 << event as u16 != 0
    }
}

impl Serialize for Events {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(Event::ALL.into_iter().filter(|event| self.has(*event)).map(word_of))
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Events, D::Error> {
        let words: Vec<String> = list(deserializer, Event::ALL.len(), "events")?;
        let mut events = Events::default();
        for word in words {
            events.insert(event_of(&word).ok_or_else(|| D::Error::custom(format_args!("unknown event {word:?}")))?);
        }
        Ok(events)
    }
}

/// The word after `task.`.
fn word_of(event: Event) -> &'static str {
    event.as_str().trim_start_matches("task.")
}

fn event_of(word: &str) -> Option<Event> {
    Event::ALL.into_iter().find(|event| word_of(*event) == word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::InvalidKind;

    fn check(json: &str, expected: Result<&str, (&str, InvalidKind)>) {
        let new: NewTask = serde_json::from_str(&format!(r#"{{"task_type":"t","callbacks":[{json}]}}"#)).unwrap();
        let checked = new.check(100);
        let checked = checked.as_ref().map_err(|invalid| (invalid.field.as_ref(), invalid.kind));
        let kept = Callbacks::of(&new.callbacks, None).map(|kept| serde_json::to_string(&*kept).unwrap());
        assert_eq!(checked.map(|()| kept.as_deref().unwrap_or_default()), expected, "{json}");
    }

    #[test]
    fn a_callback_is_kept_as_the_url_standard_writes_it() {
        let kept = r#"[{"url":"https://app.example/hook?a=1","events":["completed","failed","cancelled"]}]"#;
        check(r#"{"url":"https://APP.example:443/hook?a=1#x"}"#, Ok(kept));
        check(r#"{"url":" https://app.example/hook?a=1 ","events":null}"#, Ok(kept));
        let kept = r#"[{"url":"http://127.0.0.1/","events":["created","running"]}]"#;
        check(r#"{"url":"http://0x7f.1","events":["running","created","running"]}"#, Ok(kept));
        let kept: Arc<Callbacks> = serde_json::from_str(kept).unwrap();
        let (place, first) = kept.iter().next().unwrap();
        assert_eq!((place, &*first.url), (0, "http://127.0.0.1/"));
        assert!(first.events.has(Event::Running) && !first.events.has(Event::Completed));
    }

    #[test]
    fn what_is_no_callback_is_refused_with_its_place() {
        let value = |field| Err((field, InvalidKind::Value));
        for url in [
            "",
            "/hook",
            "app.example/hook",
            "ftp://app.example",
            "file:///etc/passwd",
            "http://",
            "http://a:0/",
            "http://a{/",
        ] {
            check(&format!(r#"{{"url":{url:?}}}"#), value("callbacks[0].url"));
        }
        for url in ["https://u@app.example/", "https://u:p@app.example/", "https://:p@app.example/"] {
            check(&format!(r#"{{"url":"{url}"}}"#), value("callbacks[0].url"));
        }
        let long = |len: usize| format!(r#"{{"url":"http://a/{}"}}"#, "x".repeat(len - 9));
        let limit = Err(("callbacks[0].url", InvalidKind::Limit(2_048)));
        check(&long(2_049), limit);
        let kept =
            format!(r#"[{{"url":"http://a/{}","events":["completed","failed","cancelled"]}}]"#, "x".repeat(2_039));
        check(&long(2_048), Ok(&kept));
        // Three bytes each once it is written down.
        check(&format!(r#"{{"url":"http://a/{}"}}"#, "é".repeat(1_000)), limit);
        check(r#"{"url":"http://a/","events":[]}"#, value("callbacks[0].events"));
        check(r#"{"url":"http://a/","events":["completed","done"]}"#, value("callbacks[0].events[1]"));
        check(r#"{"url":"http://a/","events":["task.completed"]}"#, value("callbacks[0].events[0]"));
        let five = [r#"{"url":"http://a/"}"#; 5].join(",");
        let read = serde_json::from_str::<NewTask>(&format!(r#"{{"task_type":"t","callbacks":[{five}]}}"#));
        assert!(read.unwrap_err().to_string().starts_with("must be at most 4 callbacks"));
    }
}
