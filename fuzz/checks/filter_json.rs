//! Any JSON as a filter: it is read back as it was written, and what it matches is what its words say.

use std::collections::BTreeMap;

use taskhub::task::{Detail, Filter, FilterSpec, Name, Status, Task, TaskId, Timestamp, read_strictly};

pub fn check(bytes: &[u8]) {
    let Ok(spec) = read_strictly::<FilterSpec>(bytes) else { return };
    let text = serde_json::to_string(&spec).expect("filters are JSON");
    assert_eq!(read_strictly::<FilterSpec>(text.as_bytes()).expect("what we wrote"), spec);
    let Ok(filter) = spec.clone().checked() else { return };
    for task in tasks(&spec) {
        check_task(&spec, &filter, &task);
    }
}

fn check_task(spec: &FilterSpec, filter: &Filter, task: &Task) {
    let unchanging = means(spec, task);
    assert_eq!(filter.matches_unchanging(task), unchanging, "{spec:?} and {task:?}");
    let status = spec.status.as_ref().is_none_or(|list| list.contains(&task.status));
    assert_eq!(filter.matches(task), unchanging && status, "{spec:?} and {task:?}");
    // A half of it and the whole is the whole.
    let half = FilterSpec { user_id: None, labels: None, queue: None, ..spec.clone() }.checked().expect("as the whole");
    assert_eq!(half.and(filter).matches(task), unchanging && status, "{spec:?} and {task:?}");
}

/// What the words say of the parts that never change.
fn means(spec: &FilterSpec, task: &Task) -> bool {
    let pattern = |list: &Option<Vec<String>>, name: &Name| {
        list.as_ref().is_none_or(|list| {
            list.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(beginning) => name.as_str().starts_with(beginning),
                None => name.as_str() == pattern,
            })
        })
    };
    let user = task.user_id.as_ref().map(Name::as_str);
    let labels = task.labels().cloned().unwrap_or_default();
    spec.workflow_id.is_none()
        && spec.task_id.as_ref().is_none_or(|ids| ids.contains(&task.task_id))
        && pattern(&spec.task_type, &task.task_type)
        && pattern(&spec.queue, &task.queue)
        && spec.user_id.as_ref().is_none_or(|users| users.iter().any(|id| Some(id.as_str()) == user))
        && spec.labels.iter().flatten().all(|(key, values)| labels.get(key).is_some_and(|own| values.contains(own)))
}

/// A task that should match, those that differ from it in one thing, and one that shares nothing with it.
fn tasks(spec: &FilterSpec) -> Vec<Task> {
    let name = |list: &Option<Vec<String>>| {
        let text = list.as_ref().and_then(|list| list.last()).map_or("any", String::as_str);
        Name::new(&text.replace('*', ".any"))
    };
    let labels: BTreeMap<String, String> =
        spec.labels.iter().flatten().filter_map(|(key, values)| Some((key.clone(), values.last()?.clone()))).collect();
    let match_all = Task {
        task_id: spec.task_id.as_ref().and_then(|ids| ids.last().copied()).unwrap_or(TaskId::from_bytes([7; 16])),
        task_type: name(&spec.task_type),
        queue: name(&spec.queue),
        user_id: spec.user_id.as_ref().and_then(|ids| ids.last()).map(|id| Name::new(id)),
        rev: 1,
        created_at: Timestamp::from_millis(0),
        updated_at: Timestamp::from_millis(0),
        run_at: None,
        delayed: false,
        priority: 0,
        status: spec.status.as_ref().and_then(|list| list.last().copied()).unwrap_or(Status::Pending),
        attempt: 0,
        tries: 0,
        max_attempts: 1,
        crashes: 0,
        max_crashes: 3,
        detail: (!labels.is_empty()).then(|| Box::new(Detail { labels, ..Detail::default() })),
        run: None,
    };
    let other = |text: &Name| Name::new(&format!("{}-", text.as_str()));
    let mut tasks = vec![
        Task { task_id: TaskId::from_bytes([9; 16]), ..match_all.clone() },
        Task { task_type: other(&match_all.task_type), ..match_all.clone() },
        Task { queue: other(&match_all.queue), ..match_all.clone() },
        Task { queue: Name::new(""), ..match_all.clone() },
        Task { user_id: None, ..match_all.clone() },
        Task { user_id: match_all.user_id.as_ref().map(other), ..match_all.clone() },
        Task { detail: None, ..match_all.clone() },
    ];
    tasks.extend(Status::ALL.map(|status| Task { status, ..match_all.clone() }));
    let mut labelled = match_all.clone();
    if let Some(value) = labelled.detail.as_mut().and_then(|detail| detail.labels.values_mut().next()) {
        value.push('-');
    }
    tasks.extend([labelled, match_all]);
    tasks
}
