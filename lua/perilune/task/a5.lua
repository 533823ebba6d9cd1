-- pl.task.a5: the word problem of the alternating group of five items.
return require("perilune.task.word_problem").define("a5", "random even permutations of five items, numbered 1..60 in "
  .. "lexicographic order (text 23451: place 1 holds 2), labelled with their product so far, the first applied first.",
  true)
