-- pl.task.dyck1: balanced brackets of one kind up to a depth.
return require("perilune.task.dyck").define("dyck1", { "()" })
