-- pl.task: tasks that make their own data, one file each.
return { parity = require "perilune.task.parity" }
