//! Where a request is going.
use http::uri::PathAndQuery;

/// A host of Azure DevOps, from the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `dev.azure.com`
    DevAzure,
}

/// Where a request is going.
#[derive(Clone, Debug)]
pub struct Target {
    path_and_query: PathAndQuery,
}

impl Target {
    /// What is forwarded, byte by byte.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }
    /// The organisation, lower case.
    #[must_use]
    pub fn organization(&self) -> &str {
        ""
    }
}
