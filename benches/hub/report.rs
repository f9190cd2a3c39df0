//! The rows, and the one table they end in.

/// A line of the table.
pub struct Row {
    /// Says the axis: `submit/64_connections`.
    pub name: &'static str,
    pub measured: String,
    pub target: &'static str,
    /// How many times the machine's floor it is, where there is one to compare with.
    pub floor: Option<String>,
    /// What others need for the same: published, or measured earlier on the same kind of machine.
    pub peers: &'static str,
}

/// What was asked for and what came out.
pub struct Report {
    wanted: Vec<String>,
    notes: Vec<String>,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(wanted: Vec<String>) -> Report {
        Report { wanted, notes: Vec::new(), rows: Vec::new() }
    }

    /// Whether any of these rows was asked for.
    pub fn wants(&self, names: &[&str]) -> bool {
        self.wanted.is_empty() || names.iter().any(|name| self.wanted.iter().any(|part| name.contains(part.as_str())))
    }

    /// A line above the table, shown at once too.
    pub fn note(&mut self, note: String) {
        eprintln!("{note}");
        self.notes.push(note);
    }

    /// A finished row, shown at once too, if it was asked for.
    pub fn row(&mut self, row: Row) {
        if self.wants(&[row.name]) {
            eprintln!("{:<32} {}", row.name, row.measured);
            self.rows.push(row);
        }
    }

    /// The whole, on stdout.
    pub fn print(&self) {
        const TITLES: [&str; 5] = [
            "what",
            "measured",
            "target",
            "floor",
            "peers (published, or measured earlier on the same kind of machine)",
        ];
        let cells = |row: &Row| {
            let floor = row.floor.clone().unwrap_or_default();
            [row.name.into(), row.measured.clone(), row.target.into(), floor, row.peers.into()]
        };
        let lines: Vec<[String; 5]> =
            std::iter::once(TITLES.map(str::to_owned)).chain(self.rows.iter().map(cells)).collect();
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        println!();
        self.notes.iter().for_each(|note| println!("{note}"));
        println!();
        for (at, line) in lines.iter().enumerate() {
            let padded: Vec<String> =
                line.iter().enumerate().map(|(column, cell)| format!("{cell:<0$}", width(column))).collect();
            println!("{}", padded.join("  ").trim_end());
            if at == 0 {
                println!("{}", "-".repeat(padded.join("  ").len()));
            }
        }
    }
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

/// The value below which this part of the values lies.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    assert!(!values.is_empty(), "nothing was measured");
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * part).round() as usize]
}

/// `21500.4` as `21,500`.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
