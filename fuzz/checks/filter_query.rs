//! Any query string as a filter: what is accepted means what the same filter means on the live stream.

use taskhub::http::inside::query_filter;
use taskhub::task::{FilterSpec, Status};

pub fn check(bytes: &[u8]) {
    let Ok(query) = std::str::from_utf8(bytes) else { return };
    let Ok(filter) = query_filter(query) else { return };
    let mut spec = FilterSpec::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let words = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
        let ids = || value.split(',').map(|id| id.parse().expect("checked")).collect::<Vec<_>>();
        let one = || vec![value.clone().into_owned()];
        match &*name {
            "task_id" => spec.task_id = Some(ids()),
            "status" => {
                spec.status = Some(value.split(',').map(|word| Status::parse(word).expect("checked")).collect())
            }
            "task_type" => spec.task_type = Some(words()),
            "queue" => spec.queue = Some(words()),
            "user_id" => spec.user_id = Some(one()),
            "workflow_id" => spec.workflow_id = Some(ids()),
            label => {
                let key = label.strip_prefix("label.").expect("no other parameter is known");
                spec.labels.get_or_insert_default().insert(key.to_owned(), one());
            }
        }
    }
    assert_eq!(spec.checked().as_ref(), Ok(&filter), "{query:?}");
}
