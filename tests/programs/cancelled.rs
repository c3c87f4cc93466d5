//! Every public method dropped at every point where it waits, and the connection used at once by the next.
