//! Integration tests against a real PostgreSQL, one module a concern. Each test has a database of its own.

#![allow(missing_docs)]

mod access;
mod accounts;
mod adventures;
mod attacks;
mod bounds;
mod catalog;
mod characters;
mod columns;
mod connections;
mod documents;
mod evening;
mod events;
mod faults;
mod identities;
mod inputs;
mod interleavings;
mod migrations;
mod model;
mod operations;
mod pages;
mod plans;
mod play;
mod pooler;
mod privacy;
mod races;
mod refusals;
mod repeats;
mod replicas;
mod retries;
mod rolls;
mod seats;
mod service;
mod sessions;
mod soak;
mod spans;
mod texts;
mod throwaway_server;
mod tutorial;
mod upkeep;
mod world;
