//! Cores, pinning, executor, rings, mesh, sockets, files; knows no monitoring word.
