"""The tensor IR: values, ops, text form, verifier, reference evaluator, rewriting, passes.

Everything an extension needs is here: `mapsto.ir.Mul`, `mapsto.ir.Builder`, `mapsto.ir.Operation`.
"""

from mapsto.ir.affine import *
from mapsto.ir.builder import *
from mapsto.ir.core import *
from mapsto.ir.dims import *
from mapsto.ir.errors import *
from mapsto.ir.evaluator import *
from mapsto.ir.ops.contraction import *
from mapsto.ir.ops.control import *
from mapsto.ir.ops.custom import *
from mapsto.ir.ops.effects import *
from mapsto.ir.ops.elementwise import *
from mapsto.ir.ops.flow import *
from mapsto.ir.ops.functions import *
from mapsto.ir.ops.indexing import *
from mapsto.ir.ops.logic import *
from mapsto.ir.ops.partition import *
from mapsto.ir.ops.random import *
from mapsto.ir.ops.remat import *
from mapsto.ir.ops.sequences import *
from mapsto.ir.ops.shaping import *
from mapsto.ir.ops.updates import *
from mapsto.ir.types import *
