"""What outlives a process: who runs (`processes`), what was accepted and is not finished (`stories`), what changed
(`changes`). Every control process of a cloud reads and writes these rows; nobody keeps such knowledge to itself."""
