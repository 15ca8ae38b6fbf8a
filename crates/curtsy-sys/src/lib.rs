//! The operating system calls Curtsy needs, behind safe functions: the only unsafe code of the workspace
