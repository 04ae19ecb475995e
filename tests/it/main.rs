//! Integration tests: the real binary, real git and curl, and a sample organisation on loopback.

mod support;

mod audit;
mod failure;
mod git;
mod life;
mod requests;
