//! A graph of numbers in text, as LATENCY GRAPH shows it: a column per sample, its label below it, downwards.
//!
//! ```text
//!  #
//! _||
//!
//! 542
//! sss
//! ```

/// Lines above the labels, and samples beside each other before the next graph begins.
const ROWS: usize = 4;
const COLUMNS: usize = 80;
/// How full the topmost line of a column is.
const LEVELS: [char; 3] = ['_', 'o', '#'];
/// Below the topmost line.
const FULL: char = '|';

/// Draws samples, each with its label.
pub fn draw(samples: &[(u64, String)]) -> String {
    let values = || samples.iter().map(|(value, _)| *value);
    let least = values().min().unwrap_or(0);
    let range = (values().max().unwrap_or(0) - least).max(1);
    let graphs: Vec<String> = samples
        .chunks(COLUMNS)
        .map(|samples| draw_beside(samples, least, range))
        .collect();
    graphs.join("\n")
}

fn draw_beside(samples: &[(u64, String)], least: u64, range: u64) -> String {
    let steps = ROWS * LEVELS.len();
    let mut text = String::new();
    for row in (0..ROWS).rev() {
        for (value, _) in samples {
            let step = (value - least) as u128 * steps as u128 / u128::from(range);
            let step = (step as usize).min(steps - 1);
            text.push(match step.checked_sub(row * LEVELS.len()) {
                None => ' ',
                Some(level) => LEVELS.get(level).copied().unwrap_or(FULL),
            });
        }
        text.push('\n');
    }
    text.push_str(&" ".repeat(samples.len()));
    text.push('\n');
    let longest = samples.iter().map(|(_, label)| label.len()).max();
    for line in 0..longest.unwrap_or(0) {
        let letters = samples.iter();
        text.extend(letters.map(|(_, label)| label.chars().nth(line).unwrap_or(' ')));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::draw;

    #[test]
    fn the_largest_sample_fills_its_column_and_the_least_none() {
        let samples = [(300, "5s"), (400, "4s"), (500, "12m")];
        let samples = samples.map(|(value, label)| (value, label.to_owned()));
        assert_eq!(draw(&samples), "  #\n _|\n ||\n_||\n   \n541\nss2\n  m\n");
    }
}
