//! Integration tests of the binary and the crates together: one binary, one module a topic.

// Input that is wrong: an error that names the culprit, the documented exit code, nothing overwritten.
mod bad_input;
// The catalogue beside an index: pictures that may not be opened, or were moved; checks where nothing can be written.
mod catalogue;
// What the command line promises whatever the command: help, exit codes, JSON, pipes.
mod cli;
// Making an index, killed at every file operation: the command can be repeated.
mod creation;
// Errors of the disk at every file operation, through the program and under the server.
mod disk_errors;
// Keeping an index up: import, remove, verify, rebuild, export.
mod durability;
// File operations that fail, or at which a program ends.
#[path = "../crates/index/tests/faults/mod.rs"]
mod faults;
// Searching by item, by condition, by score.
mod filter;
// Real photographs, where the data lies beside the repository.
mod grocery;
// Training runs that are killed, and disks that run full.
mod interruption;
// HTTP as clients and proxies speak it.
mod http;
// Vectors as JSON lines.
mod lines;
// Models by themselves: measured without an index, written for other programs.
mod models;
// Replacing an index, taking one away, and what else becomes of its folder.
mod replacement;
// Reports with pictures, their comparison, options for better answers.
mod reports;
// From a catalogue to an index to hits and recall; building that was cut short.
mod retrieval;
// The server over loopback: every address, what is refused, what is kept.
mod serve;
// Who may use the server: tokens, origins, TLS, read-only, files outside of the catalogue.
mod serve_access;
// What one request, or many, may take from the server: memory, time, threads, connections.
mod serve_bounds;
// What the server withstands: hostile uploads, crowds, being killed.
mod serve_hostile;
// Writes that are repeated, given up, or cut short.
mod serve_writes;
// The server as a process, and a client.
mod serving;
// Two stages of training: the second from the weights of the first.
mod stages;
// Tables in every dialect, metadata that joins, folders with all kinds of entries.
mod tables;
// Training, being stopped and going on; the demo.
mod training;
// A folder that goes away, a runner for the binary, small fixtures.
mod util;
