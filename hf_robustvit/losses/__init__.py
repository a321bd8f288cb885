"""One loss for each fine-tuning method; all are called the same way and return a `LossOutput`."""

from hf_robustvit.losses.finetune import FinetuneLoss
from hf_robustvit.losses.gradmask import GradMaskLoss
from hf_robustvit.losses.output import LossOutput
from hf_robustvit.losses.robustvit import RobustViTLoss
from hf_robustvit.losses.rrr import RRRLoss


#: The value of `--method` -> its loss.
LOSSES = {"robustvit": RobustViTLoss, "gradmask": GradMaskLoss, "rrr": RRRLoss, "finetune": FinetuneLoss}
