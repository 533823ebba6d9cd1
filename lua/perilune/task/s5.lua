-- pl.task.s5: the word problem of the symmetric group of five items.
return require("perilune.task.word_problem").define("s5", "random permutations of five items, numbered 1..120 in "
  .. "lexicographic order (text 23451: place 1 holds 2), labelled with their product so far, the first applied first.",
  false)
