//! The functions that templates can call.

/// A function: Go's own, and those that Docker adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Eq,
    Ge,
    Gt,
    Index,
    Join,
    Json,
    Le,
    Len,
    Lower,
    Lt,
    Ne,
    Not,
    Or,
    Pad,
    Print,
    Printf,
    Println,
    Slice,
    Split,
    Title,
    Truncate,
    Upper,
}

const ALL: [(&str, Function); 23] = [
    ("and", Function::And),
    ("eq", Function::Eq),
    ("ge", Function::Ge),
    ("gt", Function::Gt),
    ("index", Function::Index),
    ("join", Function::Join),
    ("json", Function::Json),
    ("le", Function::Le),
    ("len", Function::Len),
    ("lower", Function::Lower),
    ("lt", Function::Lt),
    ("ne", Function::Ne),
    ("not", Function::Not),
    ("or", Function::Or),
    ("pad", Function::Pad),
    ("print", Function::Print),
    ("printf", Function::Printf),
    ("println", Function::Println),
    ("slice", Function::Slice),
    ("split", Function::Split),
    ("title", Function::Title),
    ("truncate", Function::Truncate),
    ("upper", Function::Upper),
];

impl Function {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, function)| *function)
    }

    pub(super) fn name(self) -> &'static str {
        ALL.iter().find(|(_, function)| *function == self).map_or("", |(name, _)| name)
    }

    /// The least and the largest number of arguments.
    pub(super) fn arity(self) -> (usize, usize) {
        match self {
            Self::Print | Self::Println => (0, usize::MAX),
            Self::And | Self::Or | Self::Index | Self::Printf => (1, usize::MAX),
            Self::Eq => (2, usize::MAX),
            Self::Json | Self::Len | Self::Lower | Self::Not | Self::Title | Self::Upper => (1, 1),
            Self::Ge | Self::Gt | Self::Join | Self::Le | Self::Lt | Self::Ne => (2, 2),
            Self::Split | Self::Truncate => (2, 2),
            Self::Pad => (3, 3),
            Self::Slice => (1, 4),
        }
    }

    /// Leaves the titles of a table as they are: the first argument is the result.
    pub(super) fn keeps_titles(self) -> bool {
        use Function::{Join, Json, Lower, Split, Title, Truncate, Upper};
        matches!(self, Join | Json | Lower | Split | Title | Truncate | Upper)
    }
}
