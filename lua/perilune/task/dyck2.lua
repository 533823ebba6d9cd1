-- pl.task.dyck2: balanced brackets of two kinds up to a depth.
return require("perilune.task.dyck").define("dyck2", { "()", "[]" })
