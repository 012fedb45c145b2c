//! Columns as Go's `tabwriter` aligns them with Docker's settings.

use unicode_width::UnicodeWidthStr;

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Text with spaces for its tabs. A cell ends with a tab; what follows the last tab of a line is part of no
/// column. Cells below each other, without a line between them that has fewer, form a column of one width.
pub(super) fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut begin = 0;
        while begin < lines.len() {
            let block = widths[begin..].iter().take_while(|cells| cells.len() > column).count();
            let cells = lines[begin..begin + block].iter();
            let widest = cells.map(|cells| cells[column].width()).max().unwrap_or(0);
            for cells in &mut widths[begin..begin + block] {
                cells[column] = (widest + PADDING).max(MIN_WIDTH);
            }
            begin += block.max(1);
        }
    }
    let mut aligned = String::with_capacity(text.len() * 2);
    for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
        if index > 0 {
            aligned.push('\n');
        }
        for (column, cell) in cells.iter().enumerate() {
            aligned.push_str(cell);
            let width = widths.get(column).copied().unwrap_or(0);
            aligned.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width())));
        }
    }
    aligned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        for (text, aligned) in [
            ("", ""),
            ("a\n", "a\n"),
            ("IMAGE\tSIZE\n", "IMAGE     SIZE\n"),
            ("A\tB\nlonger than ten\tx\n", "A                 B\nlonger than ten   x\n"),
            ("a\t\tb\n", "a                   b\n"),
            // A line with fewer cells ends a column.
            ("c\na\tb\tc\nc\nlonger than ten\tx\n", "c\na         b         c\nc\nlonger than ten   x\n"),
            // Wide characters take two columns of a terminal.
            ("日本\tx\nbusybox:1.36\tx\n", "日本           x\nbusybox:1.36   x\n"),
        ] {
            assert_eq!(align(text), aligned);
        }
    }
}
