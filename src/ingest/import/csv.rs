//! Lines of comma-separated values (RFC 4180), each sample on one line.

use super::{ImportCause, ImportDecoder, Reading, kind_of, millis_of, nth_of, value_of};
use model::{LABELS_MAX, MetricKind};

/// Columns of ours, and a label each.
const COLUMNS_MAX: usize = 6 + LABELS_MAX;

/// What stands in a column, by its name in the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Name,
    Timestamp,
    Value,
    Nth,
    Type,
    /// An object of labels.
    Labels,
    /// Any other: the value of the label of that name.
    Label(String),
}

impl ImportDecoder {
    /// Reads a line; the first one is the header and no sample.
    pub(super) fn csv_line(&mut self, line: &str) -> Result<Option<Reading>, ImportCause> {
        let mut cells = std::mem::take(&mut self.cells);
        let read = read_cells(line, &mut cells).and_then(|count| match self.columns.is_empty() {
            true => self.csv_header(&cells[..count]).map(|()| None),
            false => self.csv_sample(&cells[..count]).map(Some),
        });
        self.cells = cells;
        read
    }

    fn csv_header(&mut self, cells: &[String]) -> Result<(), ImportCause> {
        for cell in cells {
            let column = match cell.trim_ascii() {
                "name" => Column::Name,
                "timestamp" => Column::Timestamp,
                "value" => Column::Value,
                "nth" => Column::Nth,
                "type" => Column::Type,
                "labels" => Column::Labels,
                "" => return Err(ImportCause::Expected("a name for each column")),
                label => Column::Label(label.to_owned()),
            };
            if self.columns.contains(&column) {
                return Err(ImportCause::Expected("each column once"));
            }
            self.columns.push(column);
        }
        if self.columns.contains(&Column::Name) && self.columns.contains(&Column::Value) {
            return Ok(());
        }
        Err(ImportCause::Expected("a header with the columns name and value"))
    }

    fn csv_sample(&mut self, cells: &[String]) -> Result<Reading, ImportCause> {
        if cells.len() != self.columns.len() {
            return Err(ImportCause::Expected("as many cells as the header has"));
        }
        let columns = std::mem::take(&mut self.columns);
        let reading = self.csv_reading(&columns, cells);
        self.columns = columns;
        reading
    }

    fn csv_reading(&mut self, columns: &[Column], cells: &[String]) -> Result<Reading, ImportCause> {
        let mut reading = Reading { value: 0.0, kind: MetricKind::default(), millis: None, nth: 0 };
        let name = columns.iter().zip(cells).find(|(column, _)| **column == Column::Name);
        self.builder.begin(name.map_or("", |(_, cell)| cell)).map_err(ImportCause::Label)?;
        for (column, cell) in columns.iter().zip(cells) {
            match column {
                Column::Name => {}
                Column::Value => reading.value = value_of(cell)?,
                _ if cell.is_empty() => {}
                Column::Timestamp => reading.millis = Some(millis_of(cell)?),
                Column::Nth => {
                    reading.nth = nth_of(cell.parse().map_err(|_| ImportCause::Expected(super::NTH))?)?;
                }
                Column::Type => reading.kind = kind_of(cell)?,
                Column::Labels => self.labels_text(cell)?,
                Column::Label(label) => self.builder.push(label, cell).map_err(ImportCause::Label)?,
            }
        }
        Ok(reading)
    }
}

/// Reads the cells of a line into the first of `cells`; how many there are.
fn read_cells(line: &str, cells: &mut Vec<String>) -> Result<usize, ImportCause> {
    let mut rest = line;
    let mut count = 0;
    loop {
        if count == COLUMNS_MAX {
            return Err(ImportCause::Expected("at most 70 columns"));
        }
        if count == cells.len() {
            cells.push(String::new());
        }
        let cell = &mut cells[count];
        cell.clear();
        count += 1;
        let Some(quoted) = rest.strip_prefix('"') else {
            let Some((plain, behind)) = rest.split_once(',') else {
                cell.push_str(rest);
                return Ok(count);
            };
            cell.push_str(plain);
            rest = behind;
            continue;
        };
        rest = quoted;
        loop {
            let (part, behind) = rest
                .split_once('"')
                .ok_or(ImportCause::Expected("the quote that ends a cell, on its line"))?;
            cell.push_str(part);
            rest = behind;
            let Some(behind) = rest.strip_prefix('"') else { break };
            cell.push('"');
            rest = behind;
        }
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.is_empty() => return Ok(count),
            None => return Err(ImportCause::Expected("a comma behind the quote that ends a cell")),
        }
    }
}
